#!/bin/sh
# Bakes an image, or makes this machine one of ours: the engine, its runtime, the boot units.
# As root on Debian, Ubuntu, or what has dnf. Idempotent; leaves nothing that a clone of the image would inherit.
#
#   install.sh [--wheels DIR] [--config FILE] [--no-units] [--now]
#
#   --wheels DIR   every wheel that uv.txt and requirements.lock ask for: then no index is asked
#   --config FILE  becomes /etc/pyinfra-solo/config.toml, if there is none
#   --no-units     without the boot units
#   --now          start the boot run, too
set -eu
umask 022
# Modules come from where this script says, never from the caller's folder.
export PYTHONSAFEPATH=1
unset CDPATH

here=$(cd "$(dirname "$0")" && pwd)
baked=/opt/pyinfra-solo
wheels= config= units=yes now= changed=

say() { echo "install: $*" >&2; }
did() { say "$*"; changed=yes; }
die() { say "$1"; exit "${2:-1}"; }

while [ $# -gt 0 ]; do
    case $1 in
        --wheels | --config) [ $# -gt 1 ] || die "$1 needs a value: see --help" 64 ;;
    esac
    case $1 in
        --wheels) wheels=$2; shift ;;
        --config) config=$2; shift ;;
        --no-units) units=no ;;
        --now) now=--now ;;
        -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) die "unknown option $1: see --help" 64 ;;
    esac
    shift
done

[ "$(id -u)" = 0 ] || die "run me as root" 64
lock=$here/../requirements.lock
[ -f "$lock" ] || die "there is no requirements.lock beside bootstrap/" 13
[ -z "$config" ] || [ -f "$config" ] || die "there is no $config" 64
[ -z "$wheels" ] || [ -d "$wheels" ] || die "there is no folder $wheels" 64
[ -z "$config" ] || config=$(cd -- "$(dirname -- "$config")" && pwd)/${config##*/}
[ -z "$wheels" ] || wheels=$(cd -- "$wheels" && pwd)
cd /

find_python() {
    for python in /usr/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11; do
        $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
    done
    python=
}

packages() {
    find_python
    missing=
    if command -v apt-get >/dev/null; then
        [ -n "$python" ] || missing="$missing python3"
        ${python:-false} -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        ssh=openssh-client ps=procps
    else
        # Amazon Linux 2023 keeps Python 3.9 as its python3 for life.
        [ -n "$python" ] || missing="$missing python3.12"
        ssh=openssh-clients ps=procps-ng
    fi
    command -v git >/dev/null || missing="$missing git"
    command -v ssh-keygen >/dev/null || missing="$missing $ssh"
    command -v ps >/dev/null || missing="$missing $ps"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/pki/tls/certs/ca-bundle.crt ] || missing="$missing ca-certificates"
    [ -n "$missing" ] || return 0
    did "installing$missing"
    # shellcheck disable=SC2086 # a list of names
    if command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        get="apt-get -qq -o DPkg::Lock::Timeout=300"
        $get install -y --no-install-recommends $missing ||
            { $get update && $get install -y --no-install-recommends $missing; }
    elif command -v dnf >/dev/null; then
        dnf -q install -y $missing
    else
        die "neither apt-get nor dnf is here: install these, and run me again:$missing"
    fi
    find_python
    [ -n "$python" ] || die "this machine's packages have no Python 3.11 or later"
}

uv() {
    wanted=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$here/uv.txt")
    [ "$($baked/uv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" = "$wanted" ] && return
    did "uv $wanted"
    rm -rf $baked/.uv
    "$python" -m venv $baked/.uv
    $baked/.uv/bin/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary=:all: \
        ${wheels:+--no-index --find-links "$wheels"} -r "$here/uv.txt"
    sync
    rm -rf $baked/uv
    # Its python is the system's by a full path, so the folder may be moved; only uv itself is used.
    mv $baked/.uv $baked/uv
}

# A wheel that is not whole is a wheel that somebody changed, to who checks its hash: so by rename.
wheel_house() {
    mkdir -p $baked/wheels
    rm -rf $baked/wheels/.new
    if [ -n "$wheels" ]; then
        for wheel in "$wheels"/*.whl; do
            [ -f "$wheel" ] || die "there is no wheel in $wheels" 10
            cmp -s "$wheel" "$baked/wheels/${wheel##*/}" && continue
            mkdir -p $baked/wheels/.new
            cp "$wheel" $baked/wheels/.new/
        done
    elif ! cmp -s "$lock" $baked/wheels/.lock; then
        mkdir $baked/wheels/.new
        did "wheels of requirements.lock, from the package index"
        $baked/uv/bin/python -m pip download -q --disable-pip-version-check --require-hashes --only-binary=:all: \
            --find-links $baked/wheels -r "$lock" -d $baked/wheels/.new
        cp "$lock" $baked/wheels/.new/.lock
    fi
    [ -d $baked/wheels/.new ] || return 0
    sync
    did "wheels: $(find $baked/wheels/.new -name '*.whl' | wc -l)"
    find $baked/wheels/.new -name '*.whl' -exec mv {} $baked/wheels/ \;
    [ ! -e $baked/wheels/.new/.lock ] || mv $baked/wheels/.new/.lock $baked/wheels/.lock
    rm -rf $baked/wheels/.new
}

# A folder named by its contents, and a link that names the folder: there is an engine at every moment.
engine() {
    rm -rf $baked/engines/.new
    mkdir -p $baked/engines/.new
    cp -R "$here/pyinfra_solo" $baked/engines/.new/
    find $baked/engines/.new -name __pycache__ -prune -exec rm -rf {} +
    name=$(cd $baked/engines/.new && find . -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum | cut -c1-16)
    if [ "$(readlink $baked/engine 2>/dev/null)" = engines/"$name" ]; then
        rm -rf $baked/engines/.new
        return
    fi
    did "engine $name"
    "$python" -m compileall -q $baked/engines/.new
    sync
    rm -rf $baked/engines/"$name"
    mv -T $baked/engines/.new $baked/engines/"$name"
    ln -sfn engines/"$name" $baked/.engine
    sync
    mv -T $baked/.engine $baked/engine
    find $baked/engines -mindepth 1 -maxdepth 1 ! -name "$name" -exec rm -rf {} +
}

runtime() {
    made=$(PYTHONPATH=$baked/engine PYTHONDONTWRITEBYTECODE=1 "$python" -m pyinfra_solo.stations.prepare \
        --lock "$lock" --into $baked/runtimes --uv $baked/uv/bin/uv --wheels $baked/wheels --python "$python")
    rm -rf $baked/uv-cache
    [ "$(readlink $baked/runtime 2>/dev/null)" = "$made" ] && return
    did "runtime ${made##*/}"
    ln -sfn "$made" $baked/.runtime
    mv -T $baked/.runtime $baked/runtime
}

commands() {
    mkdir -p $baked/bin
    for name in pyinfra-solo pyinfra-solo-fence pyinfra-solo-retry pyinfra; do
        cmp -s "$here/pyinfra_solo/units/$name" $baked/bin/$name && [ -x $baked/bin/$name ] && continue
        did "$baked/bin/$name"
        install -m 755 "$here/pyinfra_solo/units/$name" $baked/bin/.$name
        sync
        mv $baked/bin/.$name $baked/bin/$name
    done
    mkdir -p /usr/local/bin
    for name in pyinfra-solo pyinfra; do
        link=/usr/local/bin/$name
        [ "$(readlink $link 2>/dev/null)" = $baked/bin/$name ] && continue
        # A pyinfra that somebody else has installed stays theirs.
        if [ $name = pyinfra ] && { command -v pyinfra >/dev/null || [ -e $link ]; }; then continue; fi
        did "$link"
        ln -sfn $baked/bin/$name $link
    done
}

settings() {
    mkdir -p /etc/pyinfra-solo
    [ -e /etc/pyinfra-solo/config.toml ] && return
    if [ -n "$config" ]; then
        install -m 600 "$config" /etc/pyinfra-solo/.config.toml
        did "/etc/pyinfra-solo/config.toml, from $config"
        [ "$python" = /usr/bin/python3 ] || grep -q "^python *= *\"$python\"" "$config" ||
            say "/usr/bin/python3 here is older than 3.11: set python = \"$python\" below [prepare] in /etc/pyinfra-solo/config.toml"
    else
        install -m 600 "$here/config.example.toml" /etc/pyinfra-solo/.config.toml
        sed -i "s|^python = .*|python = \"$python\"|" /etc/pyinfra-solo/.config.toml
        did "/etc/pyinfra-solo/config.toml: set ops.remotes and ops.name there"
    fi
    sync
    mv /etc/pyinfra-solo/.config.toml /etc/pyinfra-solo/config.toml
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
if [ -n "$(ls -A /var/lib/pyinfra-solo 2>/dev/null)" ]; then
    say "/var/lib/pyinfra-solo holds what this machine has run: remove it before you make an image of this machine"
fi
if [ -n "$changed" ]; then say "done"; else say "nothing to change"; fi
