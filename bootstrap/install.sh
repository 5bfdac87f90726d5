#!/bin/sh
# Bakes an image, or makes this machine one of ours: the engine, its runtime, the boot units.
# As root on Debian or Ubuntu. Idempotent; leaves nothing that a clone of the image would inherit.
#
#   install.sh [--wheels DIR] [--config FILE] [--no-units] [--now]
set -eu

here=$(cd "$(dirname "$0")" && pwd)
baked=/opt/pyinfra-solo
wheels= config= units=yes now=
python=/usr/bin/python3

say() { echo "install: $*" >&2; }
die() { say "$1"; exit "${2:-1}"; }

while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$2; shift ;;
        --config) config=$2; shift ;;
        --no-units) units=no ;;
        --now) now=--now ;;
        -h | --help) sed -n '2,5s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) die "unknown option $1: see --help" 64 ;;
    esac
    shift
done

[ "$(id -u)" = 0 ] || die "run me as root" 64
lock=$here/../requirements.lock
[ -f "$lock" ] || die "there is no requirements.lock beside bootstrap/" 13
[ -z "$config" ] || [ -f "$config" ] || die "there is no $config" 64

packages() {
    missing=
    $python -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    command -v git >/dev/null || missing="$missing git"
    command -v ssh-keygen >/dev/null || missing="$missing openssh-client"
    command -v ps >/dev/null || missing="$missing procps"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    [ -z "$missing" ] && return
    command -v apt-get >/dev/null || die "install these, and run me again:$missing"
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of names
    apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing ||
        { apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing; }
}

uv() {
    wanted=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$here/uv.txt")
    [ "$($baked/uv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" = "$wanted" ] && return
    say "uv $wanted"
    rm -rf $baked/.uv
    $python -m venv $baked/.uv
    $baked/.uv/bin/pip install -q --disable-pip-version-check --require-hashes \
        ${wheels:+--no-index --find-links "$wheels"} -r "$here/uv.txt"
    rm -rf $baked/uv
    # Its python is the system's by a full path, so the folder may be moved; only uv itself is used.
    mv $baked/.uv $baked/uv
}

wheel_house() {
    mkdir -p $baked/wheels
    if [ -n "$wheels" ]; then
        cp -u "$wheels"/*.whl $baked/wheels/
    else
        $baked/uv/bin/python -m pip download -q --disable-pip-version-check --require-hashes --only-binary=:all: \
            -r "$lock" -d $baked/wheels
    fi
}

engine() {
    rm -rf $baked/.engine
    mkdir -p $baked/.engine
    cp -R "$here/pyinfra_solo" $baked/.engine/
    find $baked/.engine -name __pycache__ -prune -exec rm -rf {} +
    if [ -d $baked/engine ] && diff -qr -x __pycache__ $baked/.engine $baked/engine >/dev/null; then
        rm -rf $baked/.engine
        return
    fi
    say "the engine"
    $python -m compileall -q $baked/.engine
    sync
    rm -rf $baked/.engine-old
    [ ! -d $baked/engine ] || mv $baked/engine $baked/.engine-old
    mv $baked/.engine $baked/engine
    rm -rf $baked/.engine-old
}

runtime() {
    made=$(PYTHONPATH=$baked/engine PYTHONDONTWRITEBYTECODE=1 $python -m pyinfra_solo.prepare \
        --lock "$lock" --into $baked/runtimes --uv $baked/uv/bin/uv --wheels $baked/wheels)
    rm -rf $baked/uv-cache
    [ "$(readlink $baked/runtime 2>/dev/null)" = "$made" ] && return
    say "runtime ${made##*/}"
    ln -sfn "$made" $baked/.runtime
    mv -T $baked/.runtime $baked/runtime
}

commands() {
    mkdir -p $baked/bin
    for name in pyinfra-solo pyinfra-solo-fence; do
        cp "$here/pyinfra_solo/units/$name" $baked/bin/.$name
        chmod 755 $baked/bin/.$name
        mv $baked/bin/.$name $baked/bin/$name
    done
    ln -sfn $baked/bin/pyinfra-solo /usr/local/bin/pyinfra-solo
}

settings() {
    mkdir -p /etc/pyinfra-solo
    [ -e /etc/pyinfra-solo/config.toml ] && return
    install -m 600 "${config:-$here/config.example.toml}" /etc/pyinfra-solo/config.toml
    say "/etc/pyinfra-solo/config.toml: set ops.remotes there"
}

mkdir -p $baked
packages
uv
wheel_house
engine
runtime
commands
settings
sync
[ $units = no ] || $baked/bin/pyinfra-solo install $now
say "done"
