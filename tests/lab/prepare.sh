#!/bin/sh
# Installs the Debian packages that the lab needs on the host, and those that are named. Debian 12, as root.
set -eu
cd "$(dirname "$0")/../.."

packages="mmdebstrap systemd-container dnsmasq-base iproute2 util-linux e2fsprogs git openssh-client
          ca-certificates procps python3 python3-venv $*"

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' \
        || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

[ "$(id -u)" = 0 ] || { echo "prepare: run it as root, or install:$missing" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
echo "prepare: apt-get installs on this host, in about half a minute:$missing"
echo "prepare: to remove them later: apt-get purge --auto-remove$missing"
masked=
trap 'rm -f $masked' EXIT
# Tests start servers of their own; those of the packages must neither start now nor at the next boot.
for server in openssh-server:ssh nginx-light:nginx; do
    unit=/etc/systemd/system/${server#*:}.service
    case "$missing " in *" ${server%:*} "*)
        [ -e "$unit" ] || { mkdir -p "${unit%/*}" && ln -s /dev/null "$unit" && masked="$masked $unit"; } ;;
    esac
done
. tests/busy.sh
busy "prepare: package lists" apt-get update
# shellcheck disable=SC2086 # a list of words
busy "prepare: packages" apt-get install -y --no-install-recommends $missing
for unit in $masked; do
    rm -f "$unit"
    systemctl --quiet disable "${unit##*/}" 2>/dev/null || true
done
