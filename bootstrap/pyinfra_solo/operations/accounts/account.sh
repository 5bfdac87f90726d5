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

# useradd writes passwd, shadow, group and gshadow one after the other, and a run may end in between.
in_shadow() { [ ! -f "/etc/$1" ] || grep -q "^$2:" "/etc/$1"; }
torn() {
    grep -q "^$name:" /etc/passwd || return 1 # a directory service's
    group=$(id -gn -- "$name" 2>/dev/null) || return 0
    ! in_shadow shadow "$name" || { grep -q "^$group:" /etc/group && ! in_shadow gshadow "$group"; }
}
mend() {
    gid=$(id -g -- "$name")
    getent group "$gid" >/dev/null || groupadd --gid "$gid" -- "$name"
    grpconv
    in_shadow shadow "$name" || { pwconv && usermod --password '*' -- "$name"; }
}

look() {
    entry=$(getent passwd "$name") || { echo account; return 0; }
    ! torn || echo half
    [ "${entry##*:}" = "$shell" ] || echo shell
    [ -z "$(groups_missing)" ] || echo groups
    [ "$system" = yes ] || [ -d "$home" ] || echo home
    keys_right || echo keys
}

# useradd does not sync: after a power cut the files of a new home are there, and empty.
make_home() {
    new=${home%/*}/.${home##*/}.new
    rm -rf "$new"
    mkdir -m 0750 "$new"
    [ ! -d /etc/skel ] || cp -rT /etc/skel "$new"
    chown -R "$name:$(id -g -- "$name")" "$new"
    chmod 0750 "$new"
    sync -f "$new" 2>/dev/null || sync
    mv -T "$new" "$home"
}

apply() {
    if ! getent passwd "$name" >/dev/null; then
        if [ "$system" = yes ]; then
            useradd --system --user-group --home-dir "$home" --no-create-home --shell "$shell" --password '*' -- "$name"
        else
            useradd --no-create-home --user-group --home-dir "$home" --shell "$shell" --password '*' -- "$name"
        fi
        echo "$name: created"
    elif torn; then
        mend
        echo "$name: was half made"
    fi
    [ "$(getent passwd "$name" | cut -d : -f 7)" = "$shell" ] || usermod --shell "$shell" -- "$name"
    for group in $(groups_missing); do
        getent group "$group" >/dev/null || groupadd -- "$group"
        usermod --append --groups "$group" -- "$name"
    done
    sync /etc 2>/dev/null || sync # before coreutils 8.24 it takes no argument
    [ "$system" = yes ] || [ -d "$home" ] || make_home
    keys_right || printf '%s\n' "$keys" | as_account sh -c '
        umask 077
        mkdir -p "$1/.ssh"
        cat >"$1/.ssh/.authorized_keys.new"
        mv -f "$1/.ssh/.authorized_keys.new" "$1/.ssh/authorized_keys"' sh "$home"
}

"$mode"
