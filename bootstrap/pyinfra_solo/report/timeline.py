"""A boot on one axis: kernel, units, stations, operations, and the opening of the gate.

What systemd knows of this boot is asked here; a report of another boot has its run alone.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyinfra_solo.gate import boot_id
from pyinfra_solo.report.records import Operation, Report, Station

_OURS = ("pyinfra-solo.service", "pyinfra-solo-fence.service")
_LONGEST = 10
_NEAR = 60.0
"""Seconds after the boot's end in which a run still belongs to it: the unit's first tries."""
_STAMP = "TimestampMonotonic"
_PHASES = ("Kernel", "InitRD", "Userspace", "Finish")
_UNIT = ("InactiveExit", "ActiveEnter", "InactiveEnter")
_SYSTEMCTL_SECONDS = 30.0

Kind = Literal["phase", "unit", "run", "station", "operation", "gate"]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Something that took time: seconds after the axis' zero, and seconds long; None has not ended."""

    name: str
    kind: Kind
    began: float
    seconds: float | None
    level: int = 0
    cpu: float = 0.0
    changed: bool = False
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """zero: what the seconds are counted from. notes: what is not shown, and why."""

    zero: str
    notes: Sequence[str]
    bars: Sequence[Bar]

    @property
    def end(self) -> float:
        """Seconds after zero when the last thing ended; never 0."""
        return max((bar.began + (bar.seconds or 0) for bar in self.bars), default=0.0) or 1.0


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A systemd unit: seconds on the monotonic clock when it began, how long until it was active or,
    for a oneshot, done; None when it has not come so far. after: units that it waits for."""

    name: str
    began: float
    seconds: float | None
    after: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What systemd knows of this boot; seconds on the monotonic clock, None for what was not.

    kernel: None in a container, whose clock began with its host.
    """

    kernel: float | None
    initrd: float | None
    userspace: float
    finish: float | None
    units: Sequence[Unit]

    @property
    def zero(self) -> float:
        return self.userspace if self.kernel is None else self.kernel


def timeline(report: Report) -> Timeline:
    """The boot that the run belongs to and the run; else the run alone, and a note that says why."""
    if report.boot_id != boot_id():
        return _alone(report, "The boot is not shown: this run was in another one.")
    if report.began is None:
        return _alone(report, "The boot and the operations are not shown: this run's engine kept no times.")
    boot = this_boot()
    if boot is None:
        return _alone(report, "The boot is not shown: systemd does not run here.")
    if boot.finish is not None and report.began > boot.finish + _NEAR:
        return _alone(report, "The boot is not shown: it was over before this run began.")
    return with_boot(report, boot)


def with_boot(report: Report, boot: Boot) -> Timeline:
    """Both on one axis. report.began is given."""
    bars = _run(report, (report.began or 0.0) - boot.zero)
    end = max([boot.finish or 0.0, *(bar.began + (bar.seconds or 0) + boot.zero for bar in bars)])
    zero, notes = f"the kernel's start; PID 1 began at {(boot.initrd or boot.userspace) - boot.zero:.2f}", []
    if boot.kernel is None:
        zero, notes = "PID 1", ["No kernel is shown: this is a container, and its kernel is the host's."]
    units = [_unit(unit, boot.zero) for unit in _worth_showing(boot, end)]
    return Timeline(zero=zero, notes=notes, bars=[*_phases(boot), *units, *bars])


def slowest(report: Report, count: int = 10) -> list[Operation]:
    """The longest first."""
    return sorted(report.operations, key=lambda operation: -operation.seconds)[:count]


def _alone(report: Report, note: str) -> Timeline:
    return Timeline(zero="the run's start", notes=[note], bars=list(_run(report, 0.0)))


def _run(report: Report, zero: float) -> list[Bar]:
    failed = report.outcome == "failed"
    bars = [Bar(name=f"run: {report.command}", kind="run", began=zero, seconds=report.seconds, failed=failed)]
    for station in report.stations:
        bars.append(_station(station, zero))
        if station.name == "converge":
            bars += _operations(report, zero)
    opened = next((one for one in report.stations if (one.name, one.outcome) == ("open gate", "ok")), None)
    if opened and report.gate == "open":
        at = zero + opened.started + (opened.seconds or 0)
        bars.append(Bar(name="the gate is open", kind="gate", began=at, seconds=0.0))
    return bars


def _station(station: Station, zero: float) -> Bar:
    return Bar(
        name=station.name, kind="station", began=zero + station.started, seconds=station.seconds, level=1,
        failed=station.outcome == "failed",
    )  # fmt: skip


def _operations(report: Report, zero: float) -> Iterator[Bar]:
    """Those that say when they began; an older engine's do not."""
    for one in report.operations:
        if one.began is not None and report.began is not None:
            yield Bar(
                name=one.name, kind="operation", began=zero + one.began - report.began, seconds=one.seconds,
                level=2, cpu=min(one.cpu or 0.0, one.seconds), changed=one.changed, failed=one.failed,
            )  # fmt: skip


def _phases(boot: Boot) -> Iterator[Bar]:
    stamps = [("kernel", boot.kernel), ("initrd", boot.initrd), ("userspace", boot.userspace)]
    began = [(name, stamp) for name, stamp in stamps if stamp is not None]
    ends = [*(stamp for _, stamp in began[1:]), boot.finish]
    for (name, stamp), end in zip(began, ends, strict=True):
        seconds = None if end is None else end - stamp
        yield Bar(name=name, kind="phase", began=stamp - boot.zero, seconds=seconds)


def _unit(unit: Unit, zero: float) -> Bar:
    return Bar(name=unit.name, kind="unit", began=unit.began - zero, seconds=unit.seconds, level=1)


def _worth_showing(boot: Boot, end: float) -> list[Unit]:
    """Ours, the services and targets that ours waited for, and the longest, in the order of their start."""
    within = [unit for unit in boot.units if boot.zero <= unit.began <= end]
    awaited = {name for unit in within if unit.name in _OURS for name in unit.after}
    names = {*_OURS, *(name for name in awaited if name.endswith((".service", ".target")))}
    longest = sorted(within, key=lambda unit: -(unit.seconds or 0))[:_LONGEST]
    names |= {unit.name for unit in longest if unit.seconds}
    return sorted((unit for unit in within if unit.name in names), key=lambda unit: unit.began)


def this_boot() -> Boot | None:
    """What systemd knows, by systemctl(1). None where it does not run (sd_booted(3)) or answer."""
    if not Path("/run/systemd/system").is_dir():
        return None
    manager = _show("KernelTimestamp", *(phase + _STAMP for phase in _PHASES))
    units = _show("Id", "After", *(stamp + _STAMP for stamp in _UNIT), pattern=("*",))
    return boot_of(manager, units) if manager and units else None


def boot_of(manager: str, units: str) -> Boot | None:
    """From what `systemctl show` printed of the manager and of all units; None when it is no boot."""
    told = _properties(manager)
    stamps = {phase: _seconds(told, phase) for phase in _PHASES}
    userspace = stamps["Userspace"]
    if userspace is None:
        return None
    is_ours = told.get("KernelTimestamp") not in (None, "", "n/a")  # the clock's zero, so its stamp is 0
    return Boot(
        kernel=0.0 if is_ours else None, initrd=stamps["InitRD"], userspace=userspace, finish=stamps["Finish"],
        units=[unit for block in units.split("\n\n") for unit in _units(_properties(block))],
    )  # fmt: skip


def _units(told: Mapping[str, str]) -> Iterator[Unit]:
    """None for a unit that never began."""
    began = _seconds(told, "InactiveExit")
    if began is None:
        return
    ends = (_seconds(told, "ActiveEnter"), _seconds(told, "InactiveEnter"))
    ended = next((end for end in ends if end is not None and end >= began), None)
    yield Unit(
        name=told["Id"], began=began, seconds=None if ended is None else ended - began,
        after=told.get("After", "").split(),
    )  # fmt: skip


def _seconds(told: Mapping[str, str], name: str) -> float | None:
    """Systemd counts microseconds, and 0 is never."""
    return int(told.get(name + _STAMP, "") or 0) / 1e6 or None


def _properties(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _show(*properties: str, pattern: Sequence[str] = ()) -> str:
    command = ["systemctl", "show", "--no-pager", f"--property={','.join(properties)}", *pattern]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_SYSTEMCTL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
