#!/bin/sh
# Says what a target of the Makefile costs, before it starts: costs.sh TARGET. Times are those of two idle cores.
set -eu
cd "$(dirname "$0")/.."

cache=${PYINFRA_SOLO_LAB_CACHE:-/var/cache/pyinfra-solo-lab}
# took: when all is installed. first, loads: what the first time takes more, and downloads. keeps: in the cache.
keeps= more=
case $1 in
    demo) took="10 seconds" first="2 minutes" loads="0.4 GB" keeps="0.8 GB" ;;
    test) took="25 minutes" first="5 minutes" loads="0.6 GB" keeps="2.4 GB" ;;
    soak) took="3 minutes" first="2 minutes" loads="0.4 GB" keeps="0.8 GB" ;;
    lint) took="1 minute" first="1 minute" loads="0.2 GB" ;;
    unit) took="7 minutes" first="1 minute" loads="0.2 GB" ;;
    lab) took="18 minutes" first="5 minutes" loads="0.6 GB" keeps="2.4 GB" ;;
    bench) took="5 minutes" first="2 minutes" loads="0.4 GB" keeps="0.8 GB" more=", and more while others use them" ;;
    peers) took="1 hour" first="10 minutes" loads="1 GB" keeps="3 GB" more="; less with PEERS=..." ;;
    schema) took="1 second" first="1 minute" loads="0.2 GB" ;;
    lock) took="10 seconds" first="1 minute" loads="0.2 GB" more=", with a package index" ;;
    *) echo "costs.sh: no target $1" >&2; exit 64 ;;
esac
echo "make $1: about $took on two idle cores$more"
# `make test` has said the rest for all its parts.
[ -z "${COSTS_ARE_KNOWN-}" ] || exit 0
[ -e .venv/ready ] && { [ -z "$keeps" ] || [ -d "$cache/roots" ]; } && exit 0
cat <<END
  The first time takes about $first more, downloads about $loads, and leaves:
    Debian packages on this host, named before apt-get installs them
    0.4 GB of Python packages in .venv; to remove them: make clean
    what pip and uv downloaded in their caches; to remove it: rm -rf ~/.cache/pip ~/.cache/uv
END
[ -z "$keeps" ] || cat <<END
    $keeps of Debian roots and wheels in $cache, and 0.2 GB more
      for each change of the engine; to remove them: rm -rf $cache
END
