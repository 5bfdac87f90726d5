# An account is there. See accounts.py.
#   account look|apply NAME HOME SHELL SYSTEM GROUPS KEYS
# SYSTEM: yes or no. GROUPS: names, separated by commas. KEYS: lines for authorized_keys; "-": untouched.
set -eu
export LC_ALL=C
umask 022
mode=$1 name=$2 home=$3 shell=$4 system=$5 groups=$6 keys=$7

groups_missing() {
    has=$(id -nG -- "$name" 2>/dev/null | tr ' ' ',') || has=
    IFS=,
    for group in $groups; do
        case ,$has, in *",$group,"*) ;; *) echo "$group" ;; esac
    done
    unset IFS
}

# As the account itself: a link that it puts in its own home must not lead root anywhere.
as_account() { setpriv --reuid "$(id -u -- "$name")" --regid "$(id -g -- "$name")" --init-groups --inh-caps=-all "$@"; }

keys_right() {
    [ "$keys" != - ] || return 0
    [ "$(as_account cat "$home/.ssh/authorized_keys" 2>/dev/null)" = "$keys" ]
}

look() {
    entry=$(getent passwd "$name") || { echo account; return 0; }
    [ "${entry##*:}" = "$shell" ] || echo shell
    [ -z "$(groups_missing)" ] || echo groups
    [ "$system" = yes ] || [ -d "$home" ] || echo home
    keys_right || echo keys
}

apply() {
    if ! getent passwd "$name" >/dev/null; then
        if [ "$system" = yes ]; then
            useradd --system --user-group --home-dir "$home" --no-create-home --shell "$shell" -- "$name"
        else
            useradd --create-home --user-group --home-dir "$home" --shell "$shell" --password '*' -- "$name"
        fi
        echo "$name: created"
    fi
    [ "$(getent passwd "$name" | cut -d : -f 7)" = "$shell" ] || usermod --shell "$shell" -- "$name"
    for group in $(groups_missing); do
        getent group "$group" >/dev/null || groupadd -- "$group"
        usermod --append --groups "$group" -- "$name"
    done
    if [ "$system" = no ] && [ ! -d "$home" ]; then
        install -d -m 0750 -o "$name" -g "$(id -g -- "$name")" "$home"
    fi
    keys_right || printf '%s\n' "$keys" | as_account sh -c '
        umask 077
        mkdir -p "$1/.ssh"
        cat >"$1/.ssh/.authorized_keys.new"
        mv -f "$1/.ssh/.authorized_keys.new" "$1/.ssh/authorized_keys"' sh "$home"
}

"$mode"
