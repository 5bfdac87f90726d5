# Brings a service up, and knows whether what runs has loaded what is on disk. See service.py.
#   service baseline|look|apply NAME RECORDS ENABLED RUNNING FORCE restart=PATH... reload=PATH...
# FORCE: no, restart or reload. The paths are what a restart, or a reload, makes the service read.
set -eu
export LC_ALL=C
mode=$1 name=$2 records=$3 want_enabled=$4 want_running=$5 force=$6
shift 6
record=$records/$name

detect() {
    if [ -d /run/systemd/system ]; then
        init=systemd
    elif [ -x /sbin/init ] && /sbin/init --version 2>/dev/null </dev/null | grep -q upstart; then
        init=upstart
    else
        init=sysv
    fi
}

# One digest of all paths of a kind: contents, a link's target, or that there is none.
digest() {
    kind=$1
    shift
    for word; do
        case $word in "$kind"=*) path=${word#*=} ;; *) continue ;; esac
        if [ -L "$path" ]; then
            printf '%s -> %s\n' "$path" "$(readlink "$path")"
        elif [ -d "$path" ]; then
            find "$path" -type f -exec sha256sum {} + 2>/dev/null | sort -k 2
            find "$path" -type l -exec readlink {} + | sort
        elif [ -f "$path" ]; then
            sha256sum "$path"
        else
            printf '%s is not there\n' "$path"
        fi
    done | sha256sum | cut -c1-64
}
digests() {
    restart_digest=$(digest restart "$@")
    reload_digest=$(digest reload "$@")
}

# tmpfs: gone with the power, as are the processes that it speaks of.
remember() {
    [ -d "$records" ] || mkdir -p "$records"
    printf '%s\n%s\n' "$restart_digest" "$reload_digest" >"$record.tmp.$$"
    mv -f "$record.tmp.$$" "$record"
}

state_systemd() {
    load='' file='' active='' need='' result='' tried=''
    while IFS='=' read -r key value; do
        case $key in
            LoadState) load=$value ;;
            UnitFileState) file=$value ;;
            ActiveState) active=$value ;;
            NeedDaemonReload) need=$value ;;
            ConditionResult) result=$value ;;
            ConditionTimestampMonotonic) tried=$value ;;
        esac
    done <<SHOWN
$(systemctl show --property=LoadState,UnitFileState,ActiveState,NeedDaemonReload,ConditionResult,ConditionTimestampMonotonic -- "$name.service")
SHOWN
    case $file in '' | disabled | masked*) enabled=no ;; *) enabled=yes ;; esac
    case $active in active | reloading) running=yes ;; *) running=no ;; esac
    # A unit whose Condition says no, as timesyncd's in a container, is down and right.
    if [ "$active" = inactive ] && [ "$result" = no ] && [ "${tried:-0}" != 0 ]; then running=declined; fi
    reload_daemon=$need
    [ "$load" != not-found ] || reload_daemon=yes
}

state_upstart() {
    enabled=no running=no reload_daemon=no
    [ ! -f "/etc/init/$name.conf" ] || enabled=yes
    if initctl status "$name" 2>/dev/null | grep -q start/running; then running=yes; fi
    if [ "$enabled" = no ]; then state_sysv; fi
}

# OpenRC runs the same scripts and keeps its links in /etc/runlevels.
state_sysv() {
    enabled=no running=no reload_daemon=no
    for link in /etc/rc[2345].d/S[0-9][0-9]"$name" /etc/runlevels/*/"$name"; do
        [ ! -e "$link" ] || enabled=yes
    done
    if service "$name" status >/dev/null 2>&1 </dev/null; then running=yes; fi
}

state() {
    detect
    "state_$init"
    digests "$@"
    old_restart='' old_reload=''
    if [ -f "$record" ]; then { read -r old_restart && read -r old_reload; } <"$record" || true; fi
    verb=none
    if [ "$reload_digest" != "$old_reload" ] || [ "$force" = reload ]; then verb=reload; fi
    if [ "$restart_digest" != "$old_restart" ] || [ "$force" = restart ]; then verb=restart; fi
    [ $# -gt 0 ] || [ "$force" != no ] || verb=none
    [ "$running" = yes ] || verb=start
    [ "$running" != declined ] || verb=none
    [ "$want_running" = yes ] || verb=none
    [ "$want_enabled" = yes ] || enabled=yes
}

look() {
    state "$@"
    printf 'init=%s\nenabled=%s\nverb=%s\n' "$init" "$enabled" "$verb"
}

# Called before anything is changed: without a record (a fresh boot) what is on disk now is what the
# running process has read. From then on a difference is a reload that is still owed.
baseline() {
    detect
    printf 'init=%s\n' "$init"
    [ ! -f "$record" ] || return 0
    digests "$@"
    remember 2>/dev/null || true
}

# Output goes through a file: a daemon may keep the pipe, and pyinfra would wait for its end.
quietly() {
    output=$(mktemp)
    status=0
    "$@" >"$output" 2>&1 </dev/null || status=$?
    cat "$output"
    rm -f "$output"
    return "$status"
}

act_systemd() {
    [ "$1" != start ] || systemctl reset-failed -- "$name.service" 2>/dev/null || true
    systemctl "$1" -- "$name.service"
}
act_upstart() {
    if [ -f "/etc/init/$name.conf" ]; then
        # `restart` keeps the job's old definition (Upstart cookbook, 10.1); stop and start read the new.
        if [ "$1" = restart ]; then initctl stop "$name" && initctl start "$name"; else initctl "$1" "$name"; fi
    else
        act_sysv "$1"
    fi
}
act_sysv() { quietly service "$name" "$1"; }

enable_systemd() { systemctl --quiet enable -- "$name.service"; }
enable_upstart() { enable_sysv; }
enable_sysv() { update-rc.d "$name" defaults && update-rc.d "$name" enable; }

apply() {
    state "$@"
    [ "$reload_daemon" != yes ] || systemctl daemon-reload
    [ "$enabled" = yes ] || { "enable_$init" && echo "$name: enabled"; }
    if [ "$verb" != none ]; then
        "act_$init" "$verb" || {
            echo "$name: could not $verb. Its log says why: journalctl -u $name, or /var/log/$name.log." >&2
            exit 1
        }
        echo "$name: $verb"
    fi
    remember
}

"$mode" "$@"
