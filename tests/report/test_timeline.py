"""A boot on one axis: systemd's units and phases at their times; a run of another boot stands alone."""

from __future__ import annotations

from typing import Any

import pytest

from pyinfra_solo.clients import systemd
from pyinfra_solo.clients.systemd import parse
from pyinfra_solo.gate import boot_id
from pyinfra_solo.report import timeline
from pyinfra_solo.report.records import Operation, Report, Station
from pyinfra_solo.report.timeline import Boot, Timeline, Unit, boot_of, with_boot
from tests.report.test_records import some

CONTAINER = """\
UserspaceTimestampMonotonic=12577238069
FinishTimestampMonotonic=12577565585
KernelTimestampMonotonic=0
InitRDTimestampMonotonic=0
"""
"""`systemctl show` in systemd-nspawn, systemd 252."""
MACHINE = """\
KernelTimestamp=Sat 2026-11-21 07:49:40 UTC
UserspaceTimestampMonotonic=3400000
FinishTimestampMonotonic=12000000
KernelTimestampMonotonic=0
InitRDTimestampMonotonic=1200000
"""
UNITS = """\
Id=tmp.mount
After=swap.target system.slice local-fs-pre.target -.mount systemd-journald.socket
InactiveExitTimestampMonotonic=12577350014
ActiveEnterTimestampMonotonic=12577350014
InactiveEnterTimestampMonotonic=0

Id=systemd-networkd-wait-online.service
After=systemd-networkd.service system.slice
InactiveExitTimestampMonotonic=12577470000
ActiveEnterTimestampMonotonic=12577493000
InactiveEnterTimestampMonotonic=0

Id=pyinfra-solo.service
After=network-online.target basic.target pyinfra-solo-fence.service system.slice -.mount
InactiveExitTimestampMonotonic=12577500466
ActiveEnterTimestampMonotonic=12577534776
InactiveEnterTimestampMonotonic=0

Id=network-online.target
After=systemd-networkd-wait-online.service network.target
InactiveExitTimestampMonotonic=12577497370
ActiveEnterTimestampMonotonic=12577497370
InactiveEnterTimestampMonotonic=0

Id=modprobe@drm.service
After=system.slice
InactiveExitTimestampMonotonic=12577380000
ActiveEnterTimestampMonotonic=0
InactiveEnterTimestampMonotonic=12577390000

Id=getty@tty1.service
After=getty-pre.target
InactiveExitTimestampMonotonic=12577540000
ActiveEnterTimestampMonotonic=0
InactiveEnterTimestampMonotonic=0

Id=rescue.target
After=rescue.service
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0
InactiveEnterTimestampMonotonic=0
"""
"""`systemctl show '*'` of the same container, a few of its units."""


def ran(began: float | None, **values: Any) -> Report:
    """A run of this boot, with two stations, an operation, and a gate that it opened."""
    whole: dict[str, Any] = {
        "outcome": "ready",
        "gate": "open",
        "seconds": 4.0,
        "stations": [
            Station(name="converge", started=1.0, seconds=2.0, outcome="ok"),
            Station(name="open gate", started=3.5, seconds=0.25, outcome="ok"),
        ],
        "operations": [
            Operation(name="nginx runs", changed=True, seconds=1.5, began=(began or 0) + 1.2, cpu=2.0)
        ],
        **values,
    }
    return some(**{"boot_id": boot_id(), "began": began, **whole})


def boot(manager: str, units: str) -> Boot:
    found = boot_of(parse(manager)[0], parse(units))
    assert found
    return found


def container() -> Boot:
    return boot(CONTAINER, UNITS)


def names(found: Timeline, kind: str) -> list[str]:
    return [bar.name for bar in found.bars if bar.kind == kind]


def began(found: Timeline, name: str) -> float:
    return next(bar.began for bar in found.bars if bar.name == name)


def test_container_has_no_kernel_and_counts_from_pid_1() -> None:
    found = with_boot(ran(12577.6), container())

    assert found.zero == "PID 1"
    assert "container" in found.notes[0]
    assert names(found, "phase") == ["userspace"]
    assert began(found, "userspace") == 0
    assert began(found, "pyinfra-solo.service") == pytest.approx(0.262397)
    assert began(found, "run: boot") == pytest.approx(0.361931)


def test_machine_counts_from_its_kernel_and_shows_every_phase() -> None:
    found = with_boot(ran(8.0), boot(MACHINE, UNITS))

    phases = [(bar.name, round(bar.began, 3), round(bar.seconds or 0, 3)) for bar in found.bars[:3]]
    assert phases == [("kernel", 0.0, 1.2), ("initrd", 1.2, 2.2), ("userspace", 3.4, 8.6)]
    assert found.zero == "the kernel's start; PID 1 began at 1.20"
    assert found.notes == []


def test_unfinished_boot_has_a_phase_without_an_end() -> None:
    unfinished = boot(MACHINE.replace("12000000", "0"), "")

    assert unfinished.finish is None
    assert with_boot(ran(8.0), unfinished).bars[2].seconds is None


def test_unit_s_time_ends_when_it_is_active_or_has_ended() -> None:
    took = {unit.name: unit.seconds for unit in container().units}

    assert took["systemd-networkd-wait-online.service"] == pytest.approx(0.023)
    assert took["modprobe@drm.service"] == pytest.approx(0.01)
    assert took["getty@tty1.service"] is None
    assert "rescue.target" not in took


def test_units_are_ours_those_they_waited_for_and_the_longest() -> None:
    found = with_boot(ran(12577.6), container())

    assert names(found, "unit") == [
        "modprobe@drm.service",
        "systemd-networkd-wait-online.service",
        "network-online.target",
        "pyinfra-solo.service",
    ]


def test_units_are_the_ten_longest_and_none_from_after_the_run() -> None:
    many = [Unit(name=f"{n}.service", began=n, seconds=float(n), after=[]) for n in range(1, 31)]
    long = Boot(phases=[("kernel", 0.0), ("userspace", 0.5)], finish=3.0, units=many)

    assert names(with_boot(ran(16.0), long), "unit") == [f"{n}.service" for n in range(11, 21)]


def test_stations_hold_their_operations_and_the_gate_is_last() -> None:
    bars = with_boot(ran(12577.6), container()).bars[-5:]

    assert [bar.kind for bar in bars] == ["run", "station", "operation", "station", "gate"]
    run, converge, operation, opening, gate = bars
    assert [round(bar.began - run.began, 3) for bar in bars] == [0.0, 1.0, 1.2, 3.5, 3.75]
    assert (operation.changed, operation.seconds, operation.cpu) == (True, 1.5, 1.5)
    assert gate.began == opening.began + (opening.seconds or 0)
    assert converge.seconds == 2.0


@pytest.mark.parametrize(
    "values",
    [{"gate": "closed"}, {"stations": [Station(name="open gate", started=3.0, seconds=0.1, outcome="failed")]}],
    ids=["closed", "failed"],
)  # fmt: skip
def test_gate_that_did_not_open_has_no_bar(values: dict[str, Any]) -> None:
    assert names(with_boot(ran(12577.6, **values), container()), "gate") == []


def answer(monkeypatch: pytest.MonkeyPatch, manager: str, units: str = UNITS) -> None:
    """Let systemd run here, and answer with `manager` and `units`."""
    monkeypatch.setattr(systemd, "is_running", lambda: True)
    monkeypatch.setattr(
        systemd, "show", lambda names, _properties, _timeout: parse(units if names else manager)
    )


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (ran(12577.6, boot_id="another"), "was in another one"),
        (ran(None), "measured no times"),
        (ran(12577.6 + 3600), "was over before"),
    ],
    ids=["another boot", "an older engine", "by hand, an hour later"],
)
def test_run_that_is_not_of_this_boot_stands_alone(
    report: Report, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, CONTAINER)
    found = timeline.timeline(report)

    assert found.zero == "the run's start"
    assert why in found.notes[0]
    assert names(found, "unit") == []
    assert began(found, "run: boot") == 0
    assert names(found, "station") == ["converge", "open gate"]


def test_run_without_systemd_counts_from_its_own_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "is_running", lambda: False)
    found = timeline.timeline(ran(100.0))

    assert "systemd does not run" in found.notes[0]
    assert began(found, "nginx runs") == pytest.approx(1.2)


def test_run_stands_alone_when_systemd_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TimeoutError

    answer(monkeypatch, "")
    assert "does not answer" in timeline.timeline(ran(100.0)).notes[0]
    monkeypatch.setattr(systemd, "show", fail)
    assert "does not answer" in timeline.timeline(ran(100.0)).notes[0]


def test_first_retry_of_the_unit_belongs_to_its_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, CONTAINER)

    assert timeline.timeline(ran(12577.6 + 11)).zero == "PID 1"


@pytest.mark.parametrize(
    "manager",
    [{}, {"KernelTimestamp": "n/a"}, {"UserspaceTimestampMonotonic": "0"}],
    ids=["nothing", "no kernel", "no userspace"],
)
def test_properties_without_a_userspace_are_no_boot(manager: dict[str, str]) -> None:
    assert boot_of(manager, parse(UNITS)) is None


def test_axis_always_has_a_length() -> None:
    assert Timeline(zero="PID 1", notes=[], bars=[]).end > 0
    assert timeline.with_boot(ran(12577.6, seconds=None), container()).end > 0
