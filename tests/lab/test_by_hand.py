"""An operator at a shell: runs, plans, the gate and the lock, on a machine that is in service."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.lab.asking import (
    SLOW,
    deploy_with,
    drop_in,
    gate_file,
    gate_is_open,
    listing,
    ops_with,
    page,
    statement,
)
from tests.lab.fleet import Fleet, report, solo, status, wait_for_exit
from tests.lab.health import Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.programs import Result, wait_for

pytestmark = pytest.mark.lab

BRANCH = "by-hand"
MOTD = 'files.put(name="motd says {word}", src=__import__("io").StringIO("{word}\\n"), dest="/etc/motd")'


@pytest.fixture(scope="module")
def served(lab: Lab, fleet: Fleet) -> Iterator[Health]:
    """A web in service, whose ops repo is a branch of these tests' own."""
    ops_with(fleet, BRANCH, {"note": "made\n"})
    machine = fleet.machine("hand1", settings=fleet.settings(ref=BRANCH))
    drop_in(machine, "[Service]\nRestartSec=1s\n")
    yield fleet.in_service(machine)
    lab.discard(machine)


@pytest.fixture
def hand1(served: Health) -> BootedMachine:
    """The machine, in service."""
    served.wait_for_200()
    return served.machine


def motd(fleet: Fleet, word: str, *more: str) -> str:
    """A commit by which /etc/motd says `word`."""
    return ops_with(fleet, BRANCH, {"deploy.py": deploy_with(fleet, MOTD.format(word=word), *more)})


def statuses(health: Health, since: int) -> list[int]:
    """Return the statuses since a mark, one for equal neighbours."""
    found = [check.status for check in health.timeline[since:]]
    return [one for number, one in enumerate(found) if number == 0 or found[number - 1] != one]


def test_a_run_with_nothing_to_do_leaves_the_gate_as_it_is(served: Health, hand1: BootedMachine) -> None:
    before, vouched, since = gate_file(hand1), statement(hand1), served.mark()
    code, _, stderr = solo(hand1, "run", "--detailed-exitcodes")
    assert code == 0, stderr
    assert gate_file(hand1) == before
    assert statement(hand1) == vouched
    assert report(hand1)["outcome"] == "ready"
    served.wait_for_200()
    assert statuses(served, since) == [200], served.story(since)


def test_a_plan_shows_the_changes_of_a_commit_and_makes_none(fleet: Fleet, hand1: BootedMachine) -> None:
    assert solo(hand1, "plan")[0] == 0
    motd(fleet, "planned")
    before, gate, last = listing(hand1, "/etc", "/srv"), gate_file(hand1), report(hand1)
    code, output, stderr = solo(hand1, "plan")
    assert code == 2, stderr
    assert "+planned" in output
    assert "motd says planned" in output
    assert listing(hand1, "/etc", "/srv") == before
    assert (gate_file(hand1), report(hand1)) == (gate, last)


def test_a_run_closes_the_gate_before_a_change_and_opens_it_when_judged(
    fleet: Fleet, served: Health, hand1: BootedMachine
) -> None:
    sha, since = motd(fleet, "changed", SLOW.format(seconds=1)), served.mark()
    code, _, stderr = solo(hand1, "run", "--detailed-exitcodes")
    assert code == 2, stderr
    served.wait_for_200()
    assert statuses(served, since) == [200, 503, 200], served.story(since)
    assert hand1.read("/etc/motd") == "changed\n"
    assert statement(hand1)["sha"] == sha
    motd(fleet, "changed")
    assert solo(hand1, "run", "--detailed-exitcodes")[0] == 0


def test_a_gate_closed_by_hand_opens_only_when_the_checks_pass(fleet: Fleet, hand1: BootedMachine) -> None:
    assert solo(hand1, "gate", "status")[:2] == (0, "open: converged and judged\n")
    assert solo(hand1, "gate", "close", "--reason", "a core dump is read")[:2] == (0, "closed\n")
    assert page(hand1, "/ping.html").status == 503
    assert solo(hand1, "gate", "status")[:2] == (1, "closed: a core dump is read\n")
    assert solo(hand1, "status")[0] == 1
    hand1.run("systemctl stop shop", check=True)
    hand1.run("systemctl mask --runtime shop", check=True)
    hand1.write("/root/hasty.toml", fleet.settings(ref=BRANCH).replace("300.0", "5.0"))
    code, _, stderr = solo(hand1, "--config", "/root/hasty.toml", "gate", "open", "--reason", "done")
    assert code == 30, stderr
    assert "unit shop: " in stderr
    assert page(hand1, "/ping.html").status == 503
    hand1.run("systemctl unmask --runtime shop && systemctl start shop", check=True)
    assert solo(hand1, "gate", "open", "--reason", "done")[:2] == (0, "open\n")
    assert page(hand1, "/ping.html").status == 200


def in_background(machine: BootedMachine, *words: str) -> tuple[threading.Thread, list[Result]]:
    """`pyinfra-solo` with these words, at work in the machine."""
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(machine.run(["pyinfra-solo", *words])))
    thread.start()
    return thread, results


def at_the_slow_thing(machine: BootedMachine) -> None:
    """Wait until a run has come to the slow operation."""
    wait_for("the slow thing", lambda: machine.run("pgrep -f '[s]low-thing'").ok, timeout=30)


def test_a_second_run_waits_and_names_the_run_that_holds_the_lock(fleet: Fleet, hand1: BootedMachine) -> None:
    motd(fleet, "locked", SLOW.format(seconds=3))
    thread, results = in_background(hand1, "run")
    at_the_slow_thing(hand1)
    running = status(hand1)["running"]
    assert running["station"] == "converge"
    code, _, stderr = solo(hand1, "run")
    thread.join()
    assert (results[0].code, code) == (0, 0), stderr
    assert f"waiting for run {running['pid']}, which has held the lock for" in stderr
    hand1.write("/root/hasty.toml", fleet.settings(ref=BRANCH).replace("[limits]", "[limits]\nlock = 0.5"))
    thread, results = in_background(hand1, "run")
    at_the_slow_thing(hand1)
    code, _, stderr = solo(hand1, "--config", "/root/hasty.toml", "run")
    thread.join()
    assert code == 20, stderr
    assert "and is at converge" in stderr
    assert status(hand1)["ready"], "who gave way did not close the other's gate"
    motd(fleet, "locked")


def test_a_killed_run_leaves_the_gate_closed_and_its_unit_restarts(
    fleet: Fleet, served: Health, hand1: BootedMachine
) -> None:
    motd(fleet, "killed", SLOW.format(seconds=3))
    hand1.run("systemctl restart --no-block pyinfra-solo", check=True)
    at_the_slow_thing(hand1)
    pid = hand1.run("systemctl show --value -p MainPID pyinfra-solo").stdout.strip()
    since = served.mark()
    hand1.run(["kill", "-9", pid], check=True)
    assert not gate_is_open(hand1)
    wait_for("all to end", lambda: not hand1.run("pgrep -f '[s]low-thing'").ok, timeout=10)
    served.wait_for_200()
    assert statuses(served, since) == [503, 200], served.story(since)
    assert report(hand1)["command"] == "boot"
    assert int(hand1.run("systemctl show --value -p NRestarts pyinfra-solo").stdout) == 1


def test_stopping_the_unit_ends_every_process_of_the_run(fleet: Fleet, hand1: BootedMachine) -> None:
    motd(fleet, "stopped", SLOW.format(seconds=600))
    hand1.run("systemctl restart --no-block pyinfra-solo", check=True)
    at_the_slow_thing(hand1)
    hand1.run("systemctl stop pyinfra-solo", check=True, timeout=40)
    assert hand1.run("pgrep -af '[s]low-thing|[p]yinfra_solo'").stdout == ""
    assert not gate_is_open(hand1)
    found = report(hand1)
    assert (found["outcome"], found["exit_code"]) == ("failed", 143)
    assert "SIGTERM" in status(hand1)["gate"]["reason"]
    motd(fleet, "started")
    hand1.run("systemctl start pyinfra-solo", check=True)
    wait_for_exit(hand1, 0)


VOLATILE = r"/(machine-id|hostname)$|\.pyc$"
"""Files with the machine's name, and Python's bytecode, which holds the time of its source."""
PYINFRA = "cd /root/ops && pyinfra @local deploy.py -y"


def test_pyinfras_own_command_makes_the_same_machine_as_a_run(fleet: Fleet, lab: Lab) -> None:
    ours, theirs = fleet.machine("ours"), fleet.machine("theirs")
    for machine in (ours, theirs):
        machine.run("systemctl disable pyinfra-solo", check=True)
        machine.power_on()
    for machine in (ours, theirs):
        machine.wait_running()
        assert not gate_is_open(machine)
    code, _, stderr = solo(ours, "run")
    assert code == 0, stderr
    theirs.run(f"git clone -q {fleet.ops.http_url} /root/ops", check=True)
    done = theirs.run(PYINFRA, timeout=120)
    assert done.ok, done.stdout + done.stderr
    left = [listing(machine, "/etc", "/srv", "/home", leave_out=VOLATILE) for machine in (ours, theirs)]
    assert left[0] == left[1]
    vouched = [statement(machine) for machine in (ours, theirs)]
    for key in ("role", "stage", "sha", "checks"):
        assert vouched[0][key] == vouched[1][key]
    assert page(theirs, "/ping.html").body == "ok"
    gate = gate_file(theirs)
    repeated = theirs.run(PYINFRA, timeout=120)
    assert repeated.ok, repeated.stdout + repeated.stderr
    assert gate_file(theirs) == gate
    assert lab.health(theirs).wait_for_200(10)
