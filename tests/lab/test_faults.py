"""A server that a machine needs is slow, late, broken or away: the machine waits, and comes back by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import roots
from tests.lab.asking import deploy_with, drop_in, gate_is_open, ops_with
from tests.lab.fleet import Fleet, baked, report, solo, wait_for_exit
from tests.lab.health import Health
from tests.lab.imds import Imds
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.reasons import why
from tests.support.programs import wait_for

pytestmark = pytest.mark.lab

SOON = "[Service]\nRestartSec=1s\nExecStartPre=\n"
"""A unit that tries again at once: how long it waits is not what is tested here."""
AWHILE = 6.0
"""Seconds after power-on at which what is away comes back."""
AWAY = "http://git.lab:9/ops.git"
"""A remote at which nobody listens."""
FAILS = 'server.shell(name="the leaf is raked", commands=["exit 3"])'


@pytest.fixture(scope="module")
def web(lab: Lab, fleet: Fleet) -> Iterator[BootedMachine]:
    """A web that has been in service once, off: its disk holds a checkout, and its next boot is short."""
    machine = fleet.machine("faulty1")
    drop_in(machine, SOON)
    fleet.in_service(machine)
    machine.kill()
    yield machine
    lab.discard(machine)


@pytest.fixture
def off(web: BootedMachine) -> Iterator[BootedMachine]:
    """The same, off before a test and after it."""
    yield web
    web.kill()


def fresh(fleet: Fleet, name: str, settings: str | None = None) -> BootedMachine:
    """A machine that has never been on, with a unit that tries again at once."""
    machine = fleet.machine(name, settings=settings)
    drop_in(machine, SOON)
    return machine


def ready(fleet: Fleet, machine: BootedMachine) -> Any:
    """The report of the run that brought it into service."""
    fleet.in_service(machine)
    return wait_for_exit(machine, 0)


def station(run: Any, name: str) -> Any:
    return next(one for one in run["stations"] if one["name"] == name)


@dataclass(frozen=True)
class Fault:
    """A fault of the metadata service from power-on, its end, and the reason that the waits report."""

    begin: Callable[[Imds], object]
    reason: str
    waits: int = 1
    end: Callable[[Imds], object] | None = None
    """Ends the fault after AWHILE seconds; None: it ends by itself."""


FAULTS = {
    "late": Fault(Imds.stop, "Connection refused", end=Imds.start),
    "failing": Fault(lambda imds: imds.faults.fail.extend([503] * 3), "answered 503", waits=3),
    "refusing tokens": Fault(lambda imds: setattr(imds, "refuse_tokens", 2), "answered 403", waits=2),
    "dropping connections": Fault(lambda imds: setattr(imds.faults, "drop", 3), "", waits=3),
    "hung": Fault(Imds.hang, "timed out", end=lambda imds: imds.hang(False)),
    "out of reach": Fault(Imds.unreachable, "timed out", end=lambda imds: imds.unreachable(False)),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_failing_metadata_service_is_waited_for(
    lab: Lab, fleet: Fleet, off: BootedMachine, kind: str
) -> None:
    fault = FAULTS[kind]
    fault.begin(lab.imds)
    mending = threading.Timer(AWHILE if fault.end else 0, fault.end or (lambda _imds: None), [lab.imds])
    off.power_on()
    mending.start()
    run = ready(fleet, off)
    mending.join()
    waits = station(run, "identify")["waits"]
    assert len(waits) >= fault.waits
    assert all(fault.reason in wait["why"] for wait in waits)
    assert all(wait["seconds"] > 0 and wait["what"] for wait in waits)


def test_a_slow_metadata_service_is_waited_for_without_a_retry(
    lab: Lab, fleet: Fleet, off: BootedMachine
) -> None:
    lab.imds.faults.delay = 3.0
    asked = len(lab.imds.requests(off.address))
    off.power_on()
    wait_for("the second question", lambda: len(lab.imds.requests(off.address)) >= asked + 2, 30)
    lab.imds.faults.delay = 0.0
    run = ready(fleet, off)
    assert not station(run, "identify")["waits"]


def test_a_lost_metadata_token_is_renewed(lab: Lab, fleet: Fleet, off: BootedMachine) -> None:
    lab.imds.faults.delay = 0.3
    asked = len(lab.imds.requests(off.address))
    off.power_on()
    wait_for("the third question", lambda: len(lab.imds.requests(off.address)) >= asked + 3, 30)
    lab.imds.tokens.clear()
    lab.imds.faults.delay = 0.0
    ready(fleet, off)
    requests = lab.imds.requests(off.address)[asked:]
    assert [request.status for request in requests].count(401) == 1
    assert [request.method for request in requests].count("PUT") == 2


def test_a_metadata_service_without_tokens_is_refused(lab: Lab, fleet: Fleet, off: BootedMachine) -> None:
    lab.imds.version_1_only = True
    off.power_on()
    run = why(off)
    assert run["exit_code"] == 10
    assert run["station"] == "identify"
    assert "it is IMDSv1 only, which is refused" in run["error"]
    assert "IMDSv1 only" in off.console()
    lab.imds.version_1_only = False
    ready(fleet, off)


def test_a_machine_without_metadata_takes_no_traffic(lab: Lab, fleet: Fleet) -> None:
    settings = fleet.settings().replace("metadata = 60.0", "metadata = 2.0")
    machine = fresh(fleet, "nobody1", settings)
    health = lab.health(machine)
    lab.imds.stop()
    try:
        machine.power_on()
        run = why(machine)
        assert run["exit_code"] == 10
        assert run["station"] == "identify"
        assert "The metadata service did not identify this machine" in run["error"]
        assert "set machine.ec2 = 'no', machine.role and machine.stage" in run["error"]
        assert station(run, "identify")["waits"]
        assert health.first_200() is None
    finally:
        lab.imds.start()
    ready(fleet, machine)


def test_a_machine_without_git_boots_from_its_disk_and_says_so(fleet: Fleet, off: BootedMachine) -> None:
    fleet.lab.git.stop()
    run = ready(fleet, off)
    assert run["source"] == "disk"
    assert any(line.startswith("NO REMOTE ANSWERED") for line in station(run, "fetch")["detail"])
    assert "fetch: NO REMOTE ANSWERED: using" in off.journal("pyinfra-solo", boot=True)
    assert "from disk" in solo(off, "status")[1]


def test_a_git_server_that_never_answers_is_given_up_in_time(fleet: Fleet, off: BootedMachine) -> None:
    off.write("/etc/pyinfra-solo/config.toml", fleet.settings(timeout=2.0), 0o600)
    fleet.lab.git.hang()
    run = ready(fleet, off)
    off.write("/etc/pyinfra-solo/config.toml", fleet.settings(), 0o600)
    assert run["source"] == "disk"
    assert "no answer in time" in station(run, "fetch")["detail"][0]


def test_a_first_boot_without_git_stays_closed_until_git_is_back(lab: Lab, fleet: Fleet) -> None:
    machine = fresh(fleet, "first1")
    health = lab.health(machine)
    fleet.lab.git.stop()
    machine.power_on()
    run = why(machine)
    assert run["exit_code"] == 10
    assert run["station"] == "fetch"
    assert "no newest commit of 'main' is on disk" in run["error"]
    assert health.first_200() is None
    fleet.lab.git.heal()
    assert ready(fleet, machine)["source"] == fleet.ops.http_url


def test_a_broken_transfer_is_repeated(fleet: Fleet) -> None:
    machine = fresh(fleet, "broken1")
    fleet.lab.git.faults.drop_after = 3000
    machine.power_on()
    assert why(machine)["exit_code"] == 10
    fleet.lab.git.faults.clear()
    assert ready(fleet, machine)["sha"] == fleet.sha


def test_the_second_remote_is_used_when_the_first_is_down(fleet: Fleet) -> None:
    machine = fresh(fleet, "second1", fleet.settings(remotes=[AWAY, fleet.ops.http_url]))
    run = ready(fleet, machine)
    assert run["source"] == fleet.ops.http_url
    assert station(run, "fetch")["detail"][0].startswith(f"{AWAY}: fetch failed: ")


def test_a_machine_without_git_takes_the_commit_its_fallback_names(fleet: Fleet, off: BootedMachine) -> None:
    """The newest commit that was fetched fails; the last good one is an older one."""

    def run(policy: str) -> tuple[int, Any]:
        settings = fleet.settings(ref="disk", fallback=policy)
        off.write("/etc/pyinfra-solo/config.toml", settings, 0o600)
        code, _, _ = solo(off, "run")
        return code, report(off)

    good = ops_with(fleet, "disk", {"README.md": "good\n"})
    off.write("/etc/pyinfra-solo/config.toml", fleet.settings(ref="disk"), 0o600)
    ready(fleet, off)
    newest = ops_with(fleet, "disk", {"deploy.py": deploy_with(fleet, FAILS)})
    try:
        assert run("newest")[0] == 1
        fleet.lab.git.stop()
        code, found = run("newest")
        assert (code, found["sha"], found["source"]) == (1, newest, "disk")
        code, found = run("none")
        assert (code, found["sha"]) == (10, None)
        assert "ops.fallback is 'none'" in found["error"]
        code, found = run("last-good")
        assert (code, found["sha"], found["source"]) == (0, good, "disk")
        assert gate_is_open(off)
    finally:
        off.write("/etc/pyinfra-solo/config.toml", fleet.settings(), 0o600)


HOLD = """\
import fcntl, pathlib, sys, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
pathlib.Path("/run/held").touch()
while not pathlib.Path("/run/let-go").exists():
    time.sleep(0.1)
"""
HOLDER = """\
[Unit]
DefaultDependencies=no
Before=pyinfra-solo.service
[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/hold
[Install]
WantedBy=sysinit.target
"""


def test_a_foreign_package_install_is_waited_for(lab: Lab, fleet: Fleet) -> None:
    image = baked(roots.root("bare"), lab.folder)
    machine = fleet.machine("bare1", image=image)
    drop_in(machine, SOON)
    machine.write(
        "/etc/apt/sources.list", lab.packages.add_debs(["nginx-light", "unattended-upgrades"], image)
    )
    machine.write("/usr/local/sbin/hold", HOLD)
    machine.write("/etc/systemd/system/hold.service", HOLDER)
    machine.run("systemctl enable hold.service", check=True)
    health: Health = lab.health(machine)
    machine.power_on()
    journal = "journalctl --unit pyinfra-solo --output cat"
    wait_for("the wait to be logged", lambda: "dpkg's lock is held by" in machine.run(journal).stdout, 60)
    time.sleep(2)
    assert machine.exists("/run/held")
    assert health.first_200() is None
    machine.run("touch /run/let-go")
    run = ready(fleet, machine)
    installed = "base | systemd-timesyncd and unattended-upgrades are installed"
    assert installed in [one["name"] for one in run["operations"] if one["changed"]]
    assert machine.run("ls /var/lib/pyinfra-solo/reports/*.json").stdout.split() == [
        f"/var/lib/pyinfra-solo/reports/{run['run']}.json"
    ]
