"""A boot on one axis: what systemd tells is placed where it happened, and a run of another boot stands alone."""

from __future__ import annotations

from typing import Any

import pytest

from pyinfra_solo.gate import boot_id
from pyinfra_solo.report import timeline
from pyinfra_solo.report.records import Operation, Report, Station
from pyinfra_solo.report.timeline import Boot, Timeline, Unit, boot_of, with_boot

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


def ran(began: float | None, **said: Any) -> Report:
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
        **said,
    }
    return Report(
        run="20261121T000000Z-abcdef", command="boot", started="2026-11-21T00:00:00+00:00",
        boot_id=whole.pop("boot_id", boot_id()), engine="0.1.0", began=began, **whole,
    )  # fmt: skip


def container() -> Boot:
    boot = boot_of(CONTAINER, UNITS)
    assert boot
    return boot


def names(found: Timeline, kind: str) -> list[str]:
    return [bar.name for bar in found.bars if bar.kind == kind]


def began(found: Timeline, name: str) -> float:
    return next(bar.began for bar in found.bars if bar.name == name)


def test_a_container_has_no_kernel_of_its_own_and_counts_from_pid_1() -> None:
    found = with_boot(ran(12577.6), container())

    assert found.zero == "PID 1"
    assert "container" in found.notes[0]
    assert names(found, "phase") == ["userspace"]
    assert began(found, "userspace") == 0
    assert began(found, "pyinfra-solo.service") == pytest.approx(0.262397)
    assert began(found, "run: boot") == pytest.approx(0.361931)


def test_a_machine_counts_from_its_kernel_and_shows_every_phase() -> None:
    boot = boot_of(MACHINE, UNITS)
    assert boot
    found = with_boot(ran(8.0), boot)

    phases = [(bar.name, round(bar.began, 3), round(bar.seconds or 0, 3)) for bar in found.bars[:3]]
    assert phases == [("kernel", 0.0, 1.2), ("initrd", 1.2, 2.2), ("userspace", 3.4, 8.6)]
    assert found.zero == "the kernel's start; PID 1 began at 1.20"
    assert found.notes == []


def test_a_boot_that_goes_on_has_a_phase_without_an_end() -> None:
    boot = boot_of(MACHINE.replace("12000000", "0"), "")
    assert boot
    assert boot.finish is None
    assert with_boot(ran(8.0), boot).bars[2].seconds is None


def test_a_unit_s_time_ends_when_it_is_active_or_as_a_oneshot_done() -> None:
    took = {unit.name: unit.seconds for unit in container().units}

    assert took["systemd-networkd-wait-online.service"] == pytest.approx(0.023)
    assert took["modprobe@drm.service"] == pytest.approx(0.01)
    assert took["getty@tty1.service"] is None
    assert "rescue.target" not in took


def test_ours_what_ours_waited_for_and_the_longest_are_shown_in_their_order() -> None:
    found = with_boot(ran(12577.6), container())

    assert names(found, "unit") == [
        "modprobe@drm.service",
        "systemd-networkd-wait-online.service",
        "network-online.target",
        "pyinfra-solo.service",
    ]


def test_of_many_units_the_ten_longest_are_shown_and_none_from_after_the_run() -> None:
    many = [Unit(name=f"{n}.service", began=n, seconds=float(n), after=[]) for n in range(1, 31)]
    boot = Boot(kernel=0.0, initrd=None, userspace=0.5, finish=3.0, units=many)

    assert names(with_boot(ran(16.0), boot), "unit") == [f"{n}.service" for n in range(11, 21)]


def test_stations_hold_their_operations_and_the_gate_comes_last() -> None:
    bars = with_boot(ran(12577.6), container()).bars[-5:]

    assert [(bar.kind, bar.level) for bar in bars] == [
        ("run", 0), ("station", 1), ("operation", 2), ("station", 1), ("gate", 0),
    ]  # fmt: skip
    run, converge, operation, opening, gate = bars
    assert [round(bar.began - run.began, 3) for bar in bars] == [0.0, 1.0, 1.2, 3.5, 3.75]
    assert (operation.changed, operation.seconds, operation.cpu) == (True, 1.5, 1.5)
    assert gate.began == opening.began + (opening.seconds or 0)
    assert converge.seconds == 2.0


@pytest.mark.parametrize(
    "said",
    [{"gate": "closed"}, {"stations": [Station(name="open gate", started=3.0, seconds=0.1, outcome="failed")]}],
    ids=["closed", "failed"],
)  # fmt: skip
def test_a_gate_that_did_not_open_is_not_shown_as_open(said: dict[str, Any]) -> None:
    assert names(with_boot(ran(12577.6, **said), container()), "gate") == []


def asked(monkeypatch: pytest.MonkeyPatch, boot: Boot | None) -> None:
    monkeypatch.setattr(timeline, "this_boot", lambda: boot)


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (ran(12577.6, boot_id="another"), "was in another one"),
        (ran(None), "kept no times"),
        (ran(12577.6 + 3600), "was over before"),
    ],
    ids=["another boot", "an older engine", "by hand, an hour later"],
)
def test_a_run_that_is_not_of_this_boot_stands_alone(
    report: Report, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(monkeypatch, container())
    found = timeline.timeline(report)

    assert found.zero == "the run's start"
    assert why in found.notes[0]
    assert names(found, "unit") == []
    assert began(found, "run: boot") == 0
    assert names(found, "station") == ["converge", "open gate"]


def test_a_run_without_systemd_counts_from_its_own_start(monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, None)
    found = timeline.timeline(ran(100.0))

    assert "systemd does not run" in found.notes[0]
    assert began(found, "nginx runs") == pytest.approx(1.2)


def test_the_unit_s_first_tries_belong_to_their_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, container())

    assert timeline.timeline(ran(12577.6 + 11)).zero == "PID 1"


@pytest.mark.parametrize("manager", ["", "KernelTimestamp=n/a\n", "UserspaceTimestampMonotonic=0\n"])
def test_what_is_no_boot_is_none(manager: str) -> None:
    assert boot_of(manager, UNITS) is None


def test_an_axis_is_never_without_length() -> None:
    assert Timeline(zero="PID 1", notes=[], bars=[]).end > 0
    assert timeline.with_boot(ran(12577.6, seconds=None), container()).end > 0
