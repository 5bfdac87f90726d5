#!/bin/sh
# Says what a target of the Makefile costs, before it starts: costs.sh demo|test|soak.
set -eu
cd "$(dirname "$0")/.."

cache=${PYINFRA_SOLO_LAB_CACHE:-/var/cache/pyinfra-solo-lab}
case $1 in
    demo) took="10 s" first="2 minutes" loads="0.4 GB" keeps="0.8 GB" ;;
    test) took="20 minutes" first="5 minutes" loads="0.6 GB" keeps="2.3 GB" ;;
    soak) took="3 minutes" first="2 minutes" loads="0.4 GB" keeps="0.8 GB" ;;
esac
echo "make $1: about $took on two idle cores"
[ -e .venv/ready ] && [ -d "$cache/roots" ] && exit 0
cat <<END
  The first time takes about $first more, downloads about $loads, and leaves:
    Debian packages on this host, named before apt-get installs them
    0.4 GB of Python packages in .venv; to remove them: make clean
    $keeps of Debian roots and wheels in $cache, and 0.2 GB more
      for each change of the engine; to remove them: rm -rf $cache
END
