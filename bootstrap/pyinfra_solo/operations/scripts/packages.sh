# Debian packages are there; what they bring does not start until it is configured. See packages.py.
#   packages look|apply TIMEOUT PACKAGE...
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
mode=$1 timeout=$2
shift 2
policy=/usr/sbin/policy-rc.d

missing() {
    for package; do
        case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
            [ih]i*) ;;
            *) echo "$package" ;;
        esac
    done
}

# Denies only while this very process lives: a killed run leaves no fence behind.
fence() {
    [ ! -e "$policy" ] || grep -q '^# pyinfra-solo' "$policy" || return 0
    born=$(cut -d ' ' -f 22 "/proc/$$/stat")
    printf '#!/bin/sh\n# pyinfra-solo: what is being installed starts after it is configured.\n%s\n%s\n' \
        "[ \"\$(cut -d ' ' -f 22 /proc/$$/stat 2>/dev/null)\" = $born ] && exit 101" 'exit 0' >"$policy.new"
    chmod 755 "$policy.new"
    mv -f "$policy.new" "$policy"
}
unfence() { [ ! -e "$policy" ] || ! grep -q '^# pyinfra-solo' "$policy" || rm -f "$policy"; }

get() {
    apt-get --quiet --yes --no-install-recommends -o "DPkg::Lock::Timeout=$timeout" \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# Not the wall clock, which may be set while a first boot is under way.
uptime() { cut -d. -f1 /proc/uptime; }

# The lock of the lists is none that DPkg::Lock::Timeout waits for (apt.conf(5)).
update() {
    until=$(($(uptime) + timeout))
    while ! said=$(get update 2>&1); do
        case $said in *'Could not get lock'*) ;; *) break ;; esac
        [ "$(uptime)" -lt "$until" ] || break
        sleep 2
    done
    printf '%s\n' "$said" | tail -n 3
}

apply() {
    trap unfence EXIT
    fence
    [ -z "$(dpkg --audit 2>/dev/null)" ] || dpkg --configure --pending --force-confdef --force-confold </dev/null
    # The lists of an image may be recent enough: what they offer is tried first.
    get install "$@" </dev/null || {
        update
        get install "$@" </dev/null
    }
}

look() { missing "$@"; }

"$mode" "$@"
