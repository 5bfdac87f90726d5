#!/bin/sh
# Installs the Debian packages that the lab needs on the host, and those that are named: Debian 12, as
# root. Quick when all are there already.
set -eu

packages="mmdebstrap systemd-container dnsmasq-base iproute2 util-linux e2fsprogs git openssh-client
          ca-certificates procps python3 python3-venv $*"

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' \
        || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

[ "$(id -u)" = 0 ] || { echo "prepare: run me as root, to install:$missing" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
echo "prepare: Debian packages:$missing"
log=$(mktemp)
mask=
trap 'rm -f "$log" $mask' EXIT
# Tests start an sshd of their own; that of the package must neither start now nor at the next boot.
case "$missing " in *" openssh-server "*)
    mask=/etc/systemd/system/ssh.service
    [ ! -e $mask ] && mkdir -p ${mask%/*} && ln -s /dev/null $mask || mask= ;;
esac
# shellcheck disable=SC2086 # a list of words
{ apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null \
    || { cat "$log" >&2; exit 1; }
if [ -n "$mask" ]; then
    rm -f $mask
    systemctl --quiet disable ssh.service 2>/dev/null || true
fi
