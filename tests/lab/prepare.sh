#!/bin/sh
# Installs what the boot lab needs on the host: Debian 12, as root. Quick when all is there already.
set -eu

packages="mmdebstrap systemd-container dnsmasq-base iproute2 util-linux e2fsprogs git openssh-client
          ca-certificates procps"

missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' \
        || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # a list of words
apt-get install -q -y --no-install-recommends $missing
