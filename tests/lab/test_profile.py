"""After a boot, the machine tells where its time went: in an order that holds, and as its report has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab.fleet import Fleet, report, solo, wait_for_exit
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.test_boot import LINE

pytestmark = pytest.mark.lab

UNIT = "pyinfra-solo.service"
ROUNDED = 0.0151
"""Seconds: twice a half of the last digit, and what the report itself has rounded."""


@pytest.fixture(scope="module")
def machine(lab: Lab, fleet: Fleet) -> Iterator[BootedMachine]:
    """A web after its first boot."""
    made = fleet.machine("profile1")
    made.power_on()
    wait_for_exit(made, 0)
    made.wait_running()
    yield made
    lab.discard(made)


@dataclass(frozen=True)
class Row:
    """A line of the timeline: seconds from PID 1, and seconds long; None for what has no length."""

    name: str
    began: float
    took: float | None


def rows(machine: BootedMachine) -> list[Row]:
    """Parse `report --timeline`, from its first bar on."""
    result = machine.run("pyinfra-solo report --timeline", check=True, env={"COLUMNS": "240"})
    assert result.stdout.startswith("Seconds from PID 1.")
    assert "No kernel is shown" in result.stdout
    bars = result.stdout.partition("took")[2].partition("\n")[2]
    found = re.findall(r"^ *(?:[+!] )?(\S.*?) {2,}([\d.]+) +(?:([\d.]+) |)", bars, re.MULTILINE)
    return [Row(name, float(began), float(took) if took else None) for name, began, took in found]


def row(found: list[Row], name: str) -> Row:
    return next(one for one in found if one.name == name)


def property_of(machine: BootedMachine, name: str, unit: str = "") -> float:
    """A stamp of systemd's, in seconds on the monotonic clock."""
    return int(machine.run(f"systemctl show --value -p {name} {unit}", check=True).stdout) / 1e6


def test_a_timeline_has_the_boot_the_stations_and_the_gate_in_order(machine: BootedMachine) -> None:
    found = rows(machine)
    order = ["userspace", "pyinfra-solo-fence.service", UNIT, "run: boot", *LINE, "the gate is open"]

    began = [row(found, name).began for name in order]
    assert began == sorted(began)
    assert found[0] == row(found, "userspace")
    assert found[-1] == row(found, "the gate is open")
    assert {"network-online.target", "basic.target"} <= {one.name for one in found}


def test_a_timeline_agrees_with_systemd_and_the_report(machine: BootedMachine) -> None:
    found, reported = rows(machine), report(machine)
    zero = property_of(machine, "UserspaceTimestampMonotonic")
    started = property_of(machine, "InactiveExitTimestampMonotonic", UNIT)
    assert row(found, UNIT).began == pytest.approx(started - zero, abs=ROUNDED)
    run = row(found, "run: boot")
    assert run.began == pytest.approx(reported["began"] - zero, abs=ROUNDED)
    assert run.took == pytest.approx(reported["seconds"], abs=ROUNDED)
    for station in reported["stations"]:
        shown = row(found, station["name"])
        assert shown.began - run.began == pytest.approx(station["started"], abs=ROUNDED)
        assert shown.took == pytest.approx(station["seconds"], abs=ROUNDED)
    last = reported["stations"][-1]
    opened = row(found, "the gate is open").began - run.began
    assert opened == pytest.approx(last["started"] + last["seconds"], abs=ROUNDED)
    must_hold_its_operations(found, reported)


def must_hold_its_operations(found: list[Row], reported: dict[str, Any]) -> None:
    """Each one that says when it began is shown, one after the other, within the station converge."""
    names = [one["name"] for one in reported["operations"] if one["began"] is not None]
    shown = found[found.index(row(found, "converge")) + 1 : found.index(row(found, "judge"))]
    converge = row(found, "converge")
    assert [one.name for one in shown] == names
    ends = [converge.began]
    for one in shown:
        assert one.began >= ends[-1] - ROUNDED
        ends.append(one.began + (one.took or 0))
    assert ends[-1] <= converge.began + (converge.took or 0) + ROUNDED


def test_the_slowest_operations_agree_with_the_report(machine: BootedMachine) -> None:
    output = solo(machine, "report", "--slow")[1]
    reported = sorted(report(machine)["operations"], key=lambda one: -float(one["seconds"]))[:10]

    shown = re.findall(r"^ +([\d.]+) s  (.+?)(?:  |$)", output, re.MULTILINE)
    assert [float(seconds) for seconds, _ in shown] == [round(one["seconds"], 2) for one in reported]
    assert shown[0][1] == reported[0]["name"]
    for one in reported:
        assert all(f"{wait['what']} {wait['seconds']:.2f} s" in output for wait in one["waits"])


def test_the_html_page_and_the_summary_are_of_the_same_run(machine: BootedMachine) -> None:
    reported = report(machine)
    code, output, _ = solo(machine, "report", reported["run"], "--html", "/root/boot.html")
    assert (code, output) == (0, "")
    text = machine.read("/root/boot.html")
    assert machine.run("stat -c %a /root/boot.html").stdout.strip() == "600"
    for name in (reported["run"], reported["instance_id"], UNIT, "the gate is open", *LINE):
        assert name in text
    summary = solo(machine, "report")[1]
    assert f"{reported['run']}, `boot`: ready" in summary
    assert f"{len(reported['operations'])} operations: " in summary


def test_a_run_of_an_earlier_boot_is_shown_without_this_boot(machine: BootedMachine) -> None:
    earlier = report(machine)["run"]
    machine.reboot()
    wait_for_exit(machine, 0)
    output = solo(machine, "report", earlier, "--timeline")[1]

    assert output.startswith("Seconds from the run's start.")
    assert "was in another one" in output
    assert UNIT not in output
    assert row(rows(machine), "run: boot").began > 0
