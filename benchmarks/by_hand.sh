#!/bin/sh
# What somebody writes by hand for the same machine: the yardstick of `make bench`, run by a oneshot unit.
# The same commits, packages, files, environment, services and checks as our role `web`; ping.html last.
# It does what such scripts do, and no more: it plans nothing, proves nothing, reports nothing.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive HOME=/root
ops=/var/lib/by-hand/ops app=/srv/shop gate=/run/pyinfra-solo/gate times=/run/by-hand.times

# NAME SECONDS: what has just ended, by the clock of the kernel.
stamp() { echo "$1 $(cut -d ' ' -f 1 /proc/uptime)" >>"$times"; }

stamp start
rm -f "$gate/ping.html"
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
role=$(curl -sf -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/tags/instance/Role)
stamp identify

clone() { # URL FOLDER
    if [ -d "$2" ]; then
        git -C "$2" fetch -q --depth 1 origin main
        git -C "$2" reset -q --hard FETCH_HEAD
    else
        git clone -q --depth 1 --branch main "$1" "$2"
    fi
}
clone http://git.lab/ops-by-hand.git "$ops"
stamp git
# shellcheck source=/dev/null # packages, for this role
. "$ops/$role.conf"

# shellcheck disable=SC2154,SC2086 # a list of names, from there
if ! dpkg -s $packages >/dev/null 2>&1; then
    # Or nginx's package starts it, unconfigured, and reloads it after a second.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    apt-get -qq update
    apt-get -qq -y --no-install-recommends -o Dpkg::Options::=--force-confold install $packages >/dev/null
    rm /usr/sbin/policy-rc.d
fi
stamp apt

id -u deploy >/dev/null 2>&1 || useradd --create-home --shell /bin/bash deploy
id -u shop >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin shop
install -d -m 700 -o deploy -g deploy /home/deploy/.ssh
install -d -m 750 -o shop -g shop "$app/shared"
cp -r "$ops/files/." /
rm -f /etc/nginx/sites-enabled/default
stamp files

clone http://git.lab/shop.git "$app/repo"
stamp git
release=$app/releases/$(git -C "$app/repo" rev-parse --short=12 HEAD)
if [ ! -e "$release/.done" ]; then
    rm -rf "$release"
    mkdir -p "$release"
    git -C "$app/repo" archive HEAD | tar -x -C "$release"
    uv=/opt/pyinfra-solo/uv/bin/uv
    $uv venv -q --no-config --no-cache --no-project --python /usr/bin/python3 "$release/.venv"
    $uv pip install -q --no-config --no-cache --link-mode copy --compile-bytecode --require-hashes --no-build --offline \
        --no-index --find-links /opt/pyinfra-solo/wheels --python "$release/.venv/bin/python" -r "$release/requirements.lock"
    touch "$release/.done"
fi
ln -sfn "$release" "$app/current"
stamp uv

systemctl daemon-reload
systemctl restart systemd-journald
systemctl -q enable systemd-timesyncd shop nginx
systemctl start systemd-timesyncd || true
systemctl start shop
nginx -t -q
systemctl reload-or-restart nginx
stamp services

# Up for a second without a restart, as the role's own checks ask.
up() {
    [ "$(systemctl is-active "$1")" = active ] || return 1
    since=$(systemctl show --value --property=ActiveEnterTimestampMonotonic "$1")
    now=$(cut -d ' ' -f 1 /proc/uptime | tr -d .)0000
    [ "$((now - since))" -ge 1000000 ]
}
well() { curl -fs -m 5 -o /dev/null http://127.0.0.1/healthz && up nginx && up shop; }
until well; do sleep 0.25; done
stamp checks

mkdir -p "$gate"
echo ok >"$gate/.ping.html"
mv "$gate/.ping.html" "$gate/ping.html"
stamp done
