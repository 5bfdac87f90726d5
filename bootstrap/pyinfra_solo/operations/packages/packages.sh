# Debian packages are there; what they bring does not start until it is configured. See packages.py.
#   packages look PACKAGE...
#   packages holders
#   packages apply LOCK_TIMEOUT LISTS_AGE PACKAGE...
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
mode=$1
shift
policy=/usr/sbin/policy-rc.d
lists=/var/lib/apt/lists

missing() {
    for package; do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
            [ih]i*) ;;
            *) echo "$package" ;;
        esac
    done
}

# Denies only while this very process lives: what a killed run leaves behind lets everything through.
fence() {
    { [ ! -e "$policy" ] && [ ! -L "$policy" ]; } || ours || return 0
    born=$(cut -d ' ' -f 22 "/proc/$$/stat")
    printf '#!/bin/sh\n# pyinfra-solo: what is being installed starts after it is configured.\n%s\n%s\n' \
        "[ \"\$(cut -d ' ' -f 22 /proc/$$/stat 2>/dev/null)\" = $born ] && exit 101" 'exit 0' >"$policy.new"
    chmod 755 "$policy.new"
    mv -f "$policy.new" "$policy"
}
ours() { [ -f "$policy" ] && grep -q '^# pyinfra-solo' "$policy"; }
unfence() { ! ours || rm -f "$policy" "$policy.new"; }

# Not the wall clock, which may be set while a first boot is under way.
uptime() { cut -d. -f1 /proc/uptime; }
left() { echo $((until > $(uptime) ? until - $(uptime) : 0)); }

# By links alone: to stat(2) what other processes have open may hang. A container's apt shows the same
# path, and is another file.
holders() {
    find /proc/[0-9]*/fd -maxdepth 1 \( -lname /var/lib/dpkg/lock-frontend -o -lname /var/lib/dpkg/lock \
        -o -lname "$lists/lock" -o -lname /var/cache/apt/archives/lock \) 2>/dev/null |
        while IFS=/ read -r _ _ pid _ number; do
            link=/proc/$pid/fd/$number
            [ "$link" -ef "$(readlink "$link")" ] || continue
            ! grep -qs "^lock:.* $pid " "/proc/$pid/fdinfo/$number" || echo "$pid"
        done | sort -un | while read -r pid; do
        command=$(tr -c '[:print:]' ' ' 2>/dev/null <"/proc/$pid/cmdline" | cut -c 1-100 | sed 's/ *$//') || command=
        echo "${command:-a process that has just ended} (pid $pid)"
    done
}

# Until nobody holds a lock; before the fence, which would keep down what another's upgrade restarts.
await() {
    told=
    while held=$(holders | paste -sd , - | sed 's/,/, /g') && [ -n "$held" ]; do
        [ "$(left)" -gt 0 ] || give_up "dpkg's lock is held by $held"
        [ -n "$told" ] || echo "dpkg's lock is held by $held: waiting for $(left) s at most" >&2
        told=1
        sleep 1
    done
}
give_up() {
    echo "Gave up after $timeout s: $1. Let it end, or end it, and run again." >&2
    exit 1
}

get() {
    apt-get --quiet --yes --no-install-recommends -o "DPkg::Lock::Timeout=$(left)" \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null
}

# A time to come is of a clock that was wrong, then or now. A source that is newer has no list yet.
fresh() {
    set -- "$lists"/*_Packages*
    [ -e "$1" ] || return 1
    age=$(($(date +%s) - $(stat -c %Y "$lists")))
    [ "$age" -ge 0 ] && [ "$age" -lt "$lists_age" ] || return 1
    [ -z "$(find /etc/apt/sources.list /etc/apt/sources.list.d -newer "$lists" 2>/dev/null)" ]
}

# The lock of the lists is none that DPkg::Lock::Timeout waits for (apt.conf(5)). Without Error-Mode a
# mirror that does not answer is a success. The time of the lists is that of the last update that went
# well: apt leaves it as it was when nothing is new, and changes it when an update fails.
update() {
    when=$(stat -c %y "$lists")
    while ! said=$(get update -o APT::Update::Error-Mode=any 2>&1); do
        case $said in
            *'Could not get lock'*) ;;
            *)
                touch -d "$when" "$lists"
                printf '%s\n' "$said" | tail -n 3
                return 1
                ;;
        esac
        await
        [ "$(left)" -gt 0 ] || give_up "the lock of apt's lists is held by a process that is not seen here"
        sleep 1
    done
    touch "$lists"
    updated=1
}

explain() {
    [ "$(left)" -gt 0 ] || await
    for package; do
        apt-cache show "$package" >/dev/null 2>&1 ||
            echo "apt knows no package $package. Correct its name, or, when an operation before its own" \
                "adds its source, give its packages.installed() alone=True." >&2
    done
}

apply() {
    timeout=$1 lists_age=$2
    shift 2
    until=$(($(uptime) + timeout))
    updated=
    await
    trap unfence EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    fence
    [ -z "$(dpkg --audit 2>/dev/null)" ] || dpkg --configure --pending --force-confdef --force-confold </dev/null
    set -- $(missing "$@")
    [ $# -gt 0 ] || return 0
    fresh || update || echo "apt's lists could not be updated: those that are there are used"
    get install "$@" && return
    # Lists may also be recent and name what the mirror has dropped since.
    if [ -z "$updated" ] && update; then get install "$@" && return; fi
    explain "$@"
    exit 1
}

look() {
    missing "$@"
    ! ours || ! "$policy" || echo "$policy"
}

"$mode" "$@"
