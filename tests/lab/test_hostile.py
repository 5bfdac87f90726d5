"""Tags that hold anything, output that is no text, a full disk, a clock that was wrong: clear words, a closed gate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.lab.asking import STATEMENT, deploy_with, drop_in, gate_is_open, ops_with, page, web
from tests.lab.fleet import Fleet, changed, report, solo, status, wait_for_exit
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.programs import wait_for

pytestmark = pytest.mark.lab

ODD = (
    "".join(map(chr, [*range(1, 32), *range(127, 160), 0x202E, 0x200B, 0xFEFF, 0x1F4A9, 0x2028]))
    + "\\'\"`$%;&|"
)
TAGS = {
    "a way out": "../../etc",
    "an empty one": "",
    "a shell's": "$(touch /root/owned); `touch /root/owned` | touch /root/owned &",
    "an option": "--help",
    "a terminal's": "web\r\n\x1b[2J\x1b]0;owned\x07",
    "another case": "WEB",
    "a blank at its end": "web ",
    "of other letters": "w\u0435b",
    "256 of all kinds": (ODD * 4)[:256],
    "a template": "{{ 7 * 7 }}%s%n",
}


NOTHING = {"Role": "nothing-known", "Stage": "production"}


@pytest.fixture(scope="module")
def odd1(lab: Lab, fleet: Fleet) -> Iterator[BootedMachine]:
    """A machine that has tried to boot as nothing known; its tags are changed by each test."""
    machine = fleet.machine("odd1", tags=NOTHING)
    machine.power_on()
    wait_for_exit(machine, 12)
    yield machine
    lab.discard(machine)


def booted_as(
    machine: BootedMachine, lab: Lab, tags: dict[str, str], groups: list[str] | None = None
) -> dict[str, object]:
    """The report of a boot run with these tags, which must have failed with exit status 12."""
    instance = lab.instances[machine.name]
    instance.tags, instance.security_groups = tags, groups or ["default"]
    before = report(machine)["run"]
    machine.run("systemctl restart pyinfra-solo")
    wait_for("the run's end", lambda: ended(machine, before), timeout=30)
    found = report(machine)
    assert found["exit_code"] == 12, found["error"]
    assert not gate_is_open(machine)
    assert page(machine, "/ping.html").status in (0, 503)
    return found


def ended(machine: BootedMachine, before: str) -> bool:
    """Tell whether a run after the one called `before` has ended, and its unit will not retry."""
    found = report(machine)
    state = machine.run("systemctl is-failed pyinfra-solo").stdout
    return found["run"] != before and found["outcome"] == "failed" and state == "failed\n"


def must_be_readable(machine: BootedMachine) -> None:
    """Check that status, journal and console hold no character that a terminal would obey."""
    shown = solo(machine, "status")[1].splitlines()
    shown += machine.run("journalctl -b -q -o cat --no-pager -t pyinfra-solo").stdout.splitlines()
    shown += [line for line in machine.console().splitlines() if "pyinfra-solo[" in line]
    assert len(shown) > 10
    for line in shown:
        assert line.replace("\t", "").isprintable(), repr(line)
        assert "blob data" not in line, "journalctl hides what is not text"


@pytest.mark.parametrize("tag", ["Role", "Stage"])
@pytest.mark.parametrize("kind", TAGS)
def test_a_tag_with_odd_text_is_refused_with_a_readable_reason(
    lab: Lab, odd1: BootedMachine, kind: str, tag: str
) -> None:
    found = booted_as(odd1, lab, {"Role": "web", "Stage": "production", tag: TAGS[kind]})
    assert f"from the tag {tag}" in str(found["error"])
    assert str(found["error"]).isprintable()
    assert not odd1.exists("/root/owned")


def test_console_journal_and_status_stay_readable(odd1: BootedMachine) -> None:
    must_be_readable(odd1)
    assert status(odd1)["last_run"]["exit_code"] == 12


def test_an_unused_tag_may_hold_any_text(lab: Lab, odd1: BootedMachine) -> None:
    found = booted_as(odd1, lab, {**NOTHING, "Name": TAGS["256 of all kinds"]})
    assert "There is no role 'nothing-known'" in str(found["error"])
    must_be_readable(odd1)


def test_a_misspelt_role_or_stage_is_answered_with_the_right_name(lab: Lab, odd1: BootedMachine) -> None:
    error = str(booted_as(odd1, lab, {"Role": "wbe", "Stage": "production"})["error"])
    assert "There is no role 'wbe'" in error
    assert "Did you mean 'web'?" in error
    assert "the tag Role" in error
    error = str(booted_as(odd1, lab, {"Role": "web", "Stage": "prodution"})["error"])
    assert "Did you mean 'production'?" in error


def test_several_roles_of_security_groups_are_all_named(lab: Lab, odd1: BootedMachine) -> None:
    groups = ["default", "shop-web", "batch-worker"]
    error = str(booted_as(odd1, lab, {"Stage": "production"}, groups)["error"])
    assert error.startswith("This machine has several roles: ")
    for candidate in (
        "'web' from the security group 'shop-web'",
        "'worker' from the security group 'batch-worker'",
    ):
        assert candidate in error
    error = str(booted_as(odd1, lab, {"Stage": "production"})["error"])
    assert "maps none of its security groups (default). Roles here: base, web, worker." in error


def test_a_corrected_tag_brings_the_machine_into_service(fleet: Fleet, lab: Lab, odd1: BootedMachine) -> None:
    lab.instances[odd1.name].tags = {"Role": "web", "Stage": "production"}
    odd1.run("systemctl restart pyinfra-solo", check=True)
    fleet.in_service(odd1)


BYTES = 'server.shell(name="odd bytes are printed", commands=["printf \'\\\\377\\\\376caf\\\\351\\\\033[2J\\\\n\'{more}"])'


def test_output_that_is_not_text_breaks_nothing(fleet: Fleet) -> None:
    branch = "bytes"
    ops_with(fleet, branch, {"deploy.py": deploy_with(fleet, BYTES.format(more=""))})
    machine = fleet.machine("bytes1", settings=fleet.settings(ref=branch))
    fleet.in_service(machine)
    assert "base | odd bytes are printed" not in changed(machine)
    assert "odd bytes are printed" in changed(machine)
    ops_with(fleet, branch, {"deploy.py": deploy_with(fleet, BYTES.format(more="; exit 7"))})
    code, _, stderr = solo(machine, "run")
    assert code == 1, stderr
    found = report(machine)
    assert found["error"].startswith("The operation 'odd bytes are printed' failed: ")
    assert "caf" in found["operations"][-1]["output"][0]
    assert not gate_is_open(machine)
    must_be_readable(machine)
    assert all(line.isprintable() for line in stderr.splitlines())


FULL = [("/var/lib/pyinfra-solo", "32k"), ("/var/lib/pyinfra-solo", "600k"), ("/srv", "400k")]
"""Too small for the repository, for a checkout of it, and for a release of the app."""


@pytest.mark.parametrize(("folder", "size"), FULL)
def test_a_full_disk_is_named_and_space_on_it_mends_the_machine(fleet: Fleet, folder: str, size: str) -> None:
    machine = fleet.machine("full1")
    machine.write("/etc/fstab", f"tmpfs {folder} tmpfs size={size},mode=755 0 0\n")
    drop_in(machine, "[Service]\nRestartSec=2s\n")
    machine.power_on()
    wait_for("a run that failed", lambda: failed(machine), timeout=60)
    found = status(machine)
    error = found["last_run"]["error"]
    assert re.search("disk is full|No space left on device|0 MiB are free", error), error
    assert not gate_is_open(machine)
    assert found["gate"]["reason"] == error
    machine.run(f"mount -o remount,size=500m {folder}", check=True)
    fleet.in_service(machine)
    assert status(machine)["last_run"]["outcome"] == "ready"


def failed(machine: BootedMachine) -> bool:
    """Tell whether the last run is known, and has failed."""
    code, output, _ = solo(machine, "status", "--json")
    last = json.loads(output)["last_run"] if code in (0, 1) and output else None
    return last is not None and last["outcome"] == "failed"


LATER = "touch -h -d '+1 hour'"


def test_files_from_a_clock_an_hour_ahead_are_used_all_the_same(fleet: Fleet) -> None:
    """Containers share the host's clock, so only what it has written can be of another hour."""
    machine = fleet.machine("clock1", instance=web())
    health = fleet.in_service(machine)
    machine.power_off()
    state = "/var/lib/pyinfra-solo"
    machine.run(f"find {state} /srv /etc/nginx -xdev -exec {LATER} {{}} +", check=True)
    copies = (
        "for n in $(seq 10 60); do cp {0}/last-run.json {0}/reports/20991231T0000${{n}}Z-000000.json; done"
    )
    machine.run(copies.format(state), check=True)
    machine.power_on()
    health.wait_for_200()
    found = wait_for_exit(machine, 0)
    assert changed(machine) == []
    assert machine.exists(f"{state}/reports/{found['run']}.json")
    assert len(machine.run(f"ls {state}/reports/*.json").stdout.split()) == 30
    vouched = json.loads(machine.read(STATEMENT))
    machine.write(STATEMENT, json.dumps({**vouched, "at": vouched["at"] + 3600}))
    assert solo(machine, "status")[0] == 0
    assert solo(machine, "run", "--detailed-exitcodes")[0] == 0
    assert page(machine, "/ping.html").status == 200
