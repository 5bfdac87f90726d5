"""Packages on a real machine: one apt-get for all roles, lists that are new enough, locks that say whose
they are, and a fence that is gone however the install ends.

The tests of the program need nothing of ours on the machine: a shell runs it, as over SSH.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pyinfra_solo.operations import packages
from tests.lab import roots
from tests.lab.fleet import Fleet, baked, changed, report, solo
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.programs import Result, wait_for

pytestmark = pytest.mark.lab

POLICY = "/usr/sbin/policy-rc.d"
DAY = 24 * 3600
NAMES = ("plain", "daemon", "broken")
BUILD = """\
set -eu
mkdir -p /srv/debs /srv/build && cd /srv/build && rm -rf ./* && mkdir DEBIAN
printf 'Package: %s\\nVersion: %s\\nArchitecture: all\\nMaintainer: Nobody <nobody@lab>\\nDescription: x\\n' \\
    "$1" "$2" >DEBIAN/control
if [ -n "$3" ]; then
    printf '#!/bin/sh\\n%s\\n' "$3" >DEBIAN/postinst
    chmod 755 DEBIAN/postinst
fi
dpkg-deb --build . "/srv/debs/$1_$2.deb" >/dev/null
cd /srv/debs
for deb in *.deb; do
    dpkg-deb --field "$deb"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' "$deb" "$(stat -c %s "$deb")" \\
        "$(sha256sum "$deb" | cut -d ' ' -f 1)"
done >Packages
"""
STARTS = (
    "touch /run/began; while [ -e /run/wait ]; do sleep 0.1; done; deb-systemd-invoke start daemon.service"
)
"""A postinst that starts its service, as debhelper's do, at once or when /run/wait is gone."""
SERVICE = "[Service]\nType=oneshot\nExecStart=/bin/touch /run/started\n"
HOLD = """\
import fcntl, sys, time
lock = open(sys.argv[1], "a")
if sys.argv[2] == "hold":
    fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(600)
"""
LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)


@pytest.fixture(scope="module")
def made(lab: Lab) -> Iterator[BootedMachine]:
    """A machine with a repository of small packages of its own, and no other source."""
    machine = lab.machine("apt1", "bare")
    machine.write("/etc/apt/sources.list", "deb [trusted=yes] copy:/srv/debs ./\n")
    machine.write("/usr/local/sbin/hold", HOLD)
    machine.write("/etc/systemd/system/daemon.service", SERVICE)
    machine.power_on()
    machine.wait_running()
    yield machine
    lab.discard(machine)


@pytest.fixture
def apt(made: BootedMachine) -> BootedMachine:
    """None of its packages installed, and its lists just updated."""
    made.run(["systemctl", "stop", "hold"])
    made.run("rm -rf /srv/debs /run/began /run/started /run/wait /etc/apt/sources.list.d/*", check=True)
    made.run(f"rm -f {POLICY}; dpkg --purge --force-all {' '.join(NAMES)}")
    publish(made, "plain", "1")
    publish(made, "daemon", "1", STARTS)
    publish(made, "broken", "1", "exit 1")
    made.run("apt-get clean; rm -rf /var/lib/apt/lists/*; apt-get -q update", check=True)
    return made


def publish(machine: BootedMachine, name: str, version: str, postinst: str = "") -> None:
    machine.run(["sh", "-c", BUILD, "build", name, version, postinst], check=True)


def program(verb: str, **arguments: Any) -> str:
    return packages.PROGRAM.command(verb, arguments).get_raw_value()


def applying(*names: str, lock_timeout: int = 20, lists_age: int = DAY) -> str:
    return program("apply", lock_timeout=lock_timeout, lists_age=lists_age, packages=list(names))


def check(machine: BootedMachine, *names: str) -> list[str]:
    arguments = {"packages": list(names), "audited": "/run/pyinfra-solo/dpkg-audited"}
    found: list[str] = json.loads(machine.run(program("check", **arguments)).stdout)
    return found


def apply(machine: BootedMachine, *names: str, lock_timeout: int = 20, lists_age: int = DAY) -> Result:
    return machine.run(applying(*names, lock_timeout=lock_timeout, lists_age=lists_age))


def version(machine: BootedMachine, name: str) -> str:
    return machine.run(["dpkg-query", "-W", "-f", "${Version}", name]).stdout


def in_unit(machine: BootedMachine, unit: str, command: str) -> None:
    """In the background; from a file, as systemd has variables of its own in command lines."""
    machine.write("/run/program", command)
    run = f"systemd-run --collect --unit={unit} -p StandardError=file:/run/errors sh /run/program"
    machine.run(run, check=True)


def hold(machine: BootedMachine, lock: str, how: str = "hold") -> int:
    """Hold a lock, or only open its file; the pid of the process that does."""
    machine.run(["systemd-run", "--unit=hold", "python3", "/usr/local/sbin/hold", lock, how], check=True)
    pid = int(machine.run("systemctl show -P MainPID hold").stdout)
    opened = f"ls -l /proc/{pid}/fd | grep -q '{lock}$'"
    wait_for("the file to be open", lambda: machine.run(opened).ok, 10, every=0.1)
    if how == "hold":
        locked = f"cat /proc/{pid}/fdinfo/* | grep -q '^lock:'"
        wait_for("the lock to be held", lambda: machine.run(locked).ok, 10, every=0.1)
    return pid


STALE = {
    "old": "touch -d '25 hours ago' /var/lib/apt/lists",
    "of a time to come": "touch -d '1 hour' /var/lib/apt/lists",
    "absent": "rm -f /var/lib/apt/lists/*_Packages*",
    "older than a source": "echo '# more' >/etc/apt/sources.list.d/more.list",
}


def test_new_package_lists_are_not_updated(apt: BootedMachine) -> None:
    publish(apt, "plain", "2")
    assert apply(apt, "plain").ok
    assert version(apt, "plain") == "1"


@pytest.mark.parametrize("how", STALE)
def test_old_package_lists_are_updated_once(apt: BootedMachine, how: str) -> None:
    publish(apt, "plain", "2")
    apt.run(STALE[how], check=True)
    done = apply(apt, "plain")
    assert done.ok, done.stderr
    assert version(apt, "plain") == "2"
    publish(apt, "plain", "3")
    apt.run("dpkg --purge plain", check=True)
    assert apply(apt, "plain").ok
    assert version(apt, "plain") == "2"


def test_an_update_without_news_makes_the_lists_new(apt: BootedMachine) -> None:
    apt.run(STALE["old"], check=True)
    assert apply(apt, "plain").ok
    assert apt.run("find /var/lib/apt/lists -maxdepth 0 -mmin -60").stdout


def test_lists_that_name_a_dropped_version_are_updated(apt: BootedMachine) -> None:
    publish(apt, "plain", "2")
    apt.run("rm /srv/debs/plain_1.deb", check=True)
    assert apply(apt, "plain").ok
    assert version(apt, "plain") == "2"


def test_a_failed_update_is_no_failure_when_the_lists_suffice(apt: BootedMachine) -> None:
    apt.write("/etc/apt/sources.list.d/away.list", "deb [trusted=yes] http://127.0.0.1:9/ ./\n")
    apt.run(STALE["old"], check=True)
    done = apply(apt, "plain")
    assert done.ok, done.stderr
    assert "could not be updated" in done.stdout
    assert apt.run("find /var/lib/apt/lists -maxdepth 0 -mmin -60").stdout == ""


def test_an_unknown_package_is_named(apt: BootedMachine) -> None:
    done = apply(apt, "plain", "no-such-thing")
    assert done.code == 1
    assert done.stderr.splitlines()[-1].startswith("apt knows no package no-such-thing. Correct its name")


def test_a_package_that_cannot_be_fetched_is_named_with_its_url(apt: BootedMachine) -> None:
    apt.run("rm /srv/debs/plain_1.deb", check=True)
    done = apply(apt, "plain")
    assert done.code == 1
    assert done.stderr.splitlines()[-1].startswith(
        "apt could not fetch plain: copy:/srv/debs/./plain_1.deb: "
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_the_holder_of_a_lock_is_named_during_the_wait_and_at_its_end(apt: BootedMachine, lock: str) -> None:
    pid = hold(apt, lock)
    holder = f"dpkg's lock is held by /usr/bin/python3 /usr/local/sbin/hold {lock} hold (pid {pid})"
    done = apply(apt, "plain", lock_timeout=2)
    assert done.code == 1
    first, *_, last = done.stderr.splitlines()
    assert first.startswith(f"{holder}: waiting for")
    assert last == f"Gave up after 2 s: {holder}. Let it end, or end it, and run again."
    assert version(apt, "plain") == ""
    assert not apt.exists(POLICY)


def test_a_wait_for_a_lock_is_announced_and_ends_with_the_lock(apt: BootedMachine) -> None:
    pid = hold(apt, LOCKS[0])
    in_unit(apt, "waiting", applying("plain", lock_timeout=60))
    wait_for("word of the holder", lambda: f"(pid {pid})" in apt.run("cat /run/errors").stdout, 10)
    assert version(apt, "plain") == ""
    apt.run("systemctl stop hold", check=True)
    wait_for("the package", lambda: version(apt, "plain") == "1", 30)
    wait_for("its end", lambda: not apt.run("systemctl is-active waiting").ok, 30)


def test_a_process_that_only_opens_a_lock_does_not_hold_it(apt: BootedMachine) -> None:
    hold(apt, LOCKS[0], "look")
    assert apt.run(program("holders")).stdout == "[]\n"
    assert apply(apt, "plain", lock_timeout=2).ok


@pytest.mark.parametrize(("name", "code"), [("daemon", 0), ("broken", 1)])
def test_an_installed_service_does_not_start_and_the_fence_is_removed(
    apt: BootedMachine, name: str, code: int
) -> None:
    assert apply(apt, name).code == code
    assert not apt.exists(POLICY)
    assert not apt.exists("/run/started")


def installing(machine: BootedMachine) -> int:
    """In the middle of a postinst, behind the fence: the pid of the program."""
    machine.run("touch /run/wait", check=True)
    in_unit(machine, "installing", f"exec {applying('daemon')}")
    wait_for("the postinst", lambda: machine.exists("/run/began"), 30)
    assert machine.run([POLICY, "daemon", "start"]).code == 101
    return int(machine.run("systemctl show -P MainPID installing").stdout)


def test_a_terminated_program_removes_the_fence_after_apt_has_ended(apt: BootedMachine) -> None:
    apt.run(["kill", "-TERM", str(installing(apt))], check=True)
    assert apt.exists(POLICY)
    apt.run("rm /run/wait", check=True)
    wait_for("the fence to go", lambda: not apt.exists(POLICY), 30)
    assert version(apt, "daemon") == "1"
    assert not apt.exists("/run/started")


def test_a_stopped_unit_leaves_no_fence(apt: BootedMachine) -> None:
    installing(apt)
    apt.run("systemctl stop installing", check=True)
    assert not apt.exists(POLICY)


def test_a_killed_runs_fence_allows_all_and_the_next_run_removes_it(apt: BootedMachine) -> None:
    installing(apt)
    apt.run("systemctl kill --signal=KILL installing", check=True)
    wait_for("its end", lambda: apt.run([POLICY, "daemon", "start"]).code == 0, 10)
    assert apt.exists(POLICY)
    apt.run("rm /run/wait", check=True)
    assert apply(apt, "daemon").ok
    assert not apt.exists(POLICY)
    assert not apt.exists("/run/started")


def test_a_fence_left_behind_is_a_pending_change(apt: BootedMachine) -> None:
    installing(apt)
    assert check(apt, "plain") == ["plain"]
    apt.run("systemctl kill --signal=KILL installing; rm /run/wait; dpkg --configure -a", check=True)
    assert check(apt, "daemon") == [POLICY]
    assert apply(apt).ok
    assert check(apt, "daemon") == []


def test_what_a_killed_apt_left_half_done_is_a_pending_change(apt: BootedMachine) -> None:
    """All packages of the role are there; the one that is not well is another's."""
    assert apply(apt, "plain").ok
    assert check(apt, "plain") == []
    installing(apt)
    apt.run("systemctl kill --signal=KILL installing; rm /run/wait", check=True)
    wait_for("its end", lambda: apt.run(program("holders")).stdout == "[]\n", 10)
    assert "half configured" in apt.run("dpkg --audit", check=True).stdout
    assert packages.program.AUDIT in check(apt, "plain")
    done = apply(apt)
    assert done.ok, done.stderr
    assert apt.run("dpkg --audit", check=True).stdout == ""
    assert check(apt, "plain", "daemon") == []


def test_what_a_killed_dpkg_was_unpacking_is_installed_anew(apt: BootedMachine) -> None:
    assert apply(apt, "plain").ok
    apt.run("sed -i '/^Package: plain$/,/^$/s/^Status: .*/Status: install reinstreq half-installed/'"
            " /var/lib/dpkg/status", check=True)  # fmt: skip
    assert check(apt) == [packages.program.AUDIT]
    done = apply(apt)
    assert done.ok, done.stdout + done.stderr
    assert check(apt, "plain") == []


def test_a_package_that_cannot_be_configured_fails_every_install_by_name(apt: BootedMachine) -> None:
    assert apply(apt, "broken").code == 1
    done = apply(apt, "plain")
    assert done.code == 1
    assert done.stderr.splitlines()[-1].startswith(
        "dpkg --audit finds packages that are not installed well: broken. Repair them"
    )
    assert not apt.exists(POLICY)


@pytest.mark.parametrize(
    "policy", ["printf '#!/bin/sh\\nexit 0\\n' >P; chmod 755 P", "ln -s /etc/operators-own P"]
)
def test_an_operators_own_policy_is_left_alone(apt: BootedMachine, policy: str) -> None:
    apt.run(policy.replace("P", POLICY), check=True)
    before = apt.run(["ls", "-li", POLICY]).stdout
    assert apply(apt, "plain").ok
    assert apt.run(["ls", "-li", POLICY]).stdout == before


def test_packages_of_two_roles_are_installed_by_one_apt_get(lab: Lab, fleet: Fleet) -> None:
    image = baked(roots.root("bare"), lab.folder)
    machine = fleet.machine("both1", image=image)
    machine.write(
        "/etc/apt/sources.list", lab.packages.add_debs(["nginx-light", "unattended-upgrades"], image)
    )
    machine.run("rm -f /var/log/apt/history.log; systemctl disable pyinfra-solo", check=True)
    machine.power_on()
    machine.wait_running()
    code, plan, stderr = solo(machine, "plan")
    assert code == 2, stderr
    line = next(line for line in plan.splitlines() if " packages apply " in line)
    assert line.endswith("""'packages:=["unattended-upgrades", "nginx-light"]'""")
    code, _, stderr = solo(machine, "run")
    assert code == 0, stderr
    commands = machine.run("grep ^Commandline: /var/log/apt/history.log").stdout.splitlines()
    assert [one.partition(" install ")[2] for one in commands] == ["unattended-upgrades nginx-light"]
    would = [name for name in (one["name"] for one in report(machine)["operations"]) if f"{name}\n" in plan]
    assert [name for name in changed(machine) if "installed" in name] == [
        name for name in would if "installed" in name
    ]
    assert solo(machine, "plan")[0] == 0
