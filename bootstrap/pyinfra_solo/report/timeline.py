"""Place a boot on one time axis: kernel, units, stations, operations, and the opening of the gate.

systemd knows the times of this boot only, so a report of another boot shows its run alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pyinfra_solo.clients import systemd
from pyinfra_solo.gate import boot_id
from pyinfra_solo.report.records import Report, StationName

_OURS = ("pyinfra-solo.service", "pyinfra-solo-fence.service")
_LONGEST = 10
_NEAR = 60.0
"""Seconds after the end of the boot in which a run still belongs to it: the unit retries a failed run."""
_STAMP = "TimestampMonotonic"
_PHASES = ("InitRD", "Userspace", "Finish")
_UNIT = ("InactiveExit", "ActiveEnter", "InactiveEnter")
_SECONDS = 30.0
"""How long systemctl may take to answer."""

Kind = Literal["phase", "unit", "run", "station", "operation", "gate"]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A thing that took time. began: seconds after the axis' zero; seconds: None when it has not ended.

    cpu: seconds of CPU time within `seconds`.
    """

    name: str
    kind: Kind
    began: float
    seconds: float | None
    cpu: float = 0.0
    changed: bool = False
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The bars of a boot. zero: the event at second 0. notes: what is missing, and why."""

    zero: str
    notes: Sequence[str]
    bars: Sequence[Bar]

    @property
    def end(self) -> float:
        """Return the seconds after zero at which the last bar ends; never 0."""
        return max((bar.began + (bar.seconds or 0) for bar in self.bars), default=0.0) or 1.0


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The start of a systemd unit. began: seconds on the monotonic clock.

    seconds: until it was active or, for a oneshot, had ended; None when it has not come so far.
    after: the units that it waits for.
    """

    name: str
    began: float
    seconds: float | None
    after: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Boot:
    """This boot. phases: names and starts, in seconds on the monotonic clock; no kernel in a container.

    finish: the end of the last phase; None when it has not come so far.
    """

    phases: Sequence[tuple[str, float]]
    finish: float | None
    units: Sequence[Unit]

    @property
    def zero(self) -> float:
        return self.phases[0][1]


def timeline(report: Report) -> Timeline:
    """Return the run and the boot that it belongs to; else the run alone, and a note that says why."""
    if report.boot_id != boot_id():
        return _alone(report, "The boot is not shown: this run was in another one.")
    if report.began is None:
        return _alone(
            report, "The boot and the operations are not shown: this run's engine measured no times."
        )
    boot = _this_boot()
    if boot is None:
        return _alone(report, "The boot is not shown: systemd does not run here, or does not answer.")
    if boot.finish is not None and report.began > boot.finish + _NEAR:
        return _alone(report, "The boot is not shown: it was over before this run began.")
    return with_boot(report, boot)


def with_boot(report: Report, boot: Boot) -> Timeline:
    """Place both on one axis. `report.began` is not None."""
    bars = list(_run(report, (report.began or 0.0) - boot.zero))
    end = max([boot.finish or 0.0, *(bar.began + (bar.seconds or 0) + boot.zero for bar in bars)])
    if boot.phases[0][0] == "kernel":
        zero, notes = f"the kernel's start; PID 1 began at {boot.phases[1][1] - boot.zero:.2f}", []
    else:
        zero, notes = "PID 1", ["No kernel is shown: this is a container, and its kernel is the host's."]
    units = [
        Bar(name=unit.name, kind="unit", began=unit.began - boot.zero, seconds=unit.seconds)
        for unit in _worth_showing(boot, end)
    ]
    return Timeline(zero=zero, notes=notes, bars=[*_phases(boot), *units, *bars])


def _alone(report: Report, note: str) -> Timeline:
    return Timeline(zero="the run's start", notes=[note], bars=list(_run(report, 0.0)))


def _run(report: Report, zero: float) -> Iterator[Bar]:
    failed = report.outcome == "failed"
    yield Bar(name=f"run: {report.command}", kind="run", began=zero, seconds=report.seconds, failed=failed)
    for one in report.stations:
        began, failed = zero + one.started, one.outcome == "failed"
        yield Bar(name=one.name, kind="station", began=began, seconds=one.seconds, failed=failed)
        if one.name == StationName.CONVERGE:
            yield from _operations(report, zero)
        if (one.name, one.outcome, report.gate) == (StationName.OPEN_GATE, "ok", "open"):
            yield Bar(name="the gate is open", kind="gate", began=began + (one.seconds or 0), seconds=0.0)


def _operations(report: Report, zero: float) -> Iterator[Bar]:
    """Yield the operations that have a start time; an older engine records none."""
    for one in report.operations:
        if one.began is not None and report.began is not None:
            yield Bar(
                name=one.name, kind="operation", began=zero + one.began - report.began, seconds=one.seconds,
                cpu=min(one.cpu or 0.0, one.seconds), changed=one.changed, failed=one.failed,
            )  # fmt: skip


def _phases(boot: Boot) -> Iterator[Bar]:
    ends = [*(stamp for _, stamp in boot.phases[1:]), boot.finish]
    for (name, stamp), end in zip(boot.phases, ends, strict=True):
        seconds = None if end is None else end - stamp
        yield Bar(name=name, kind="phase", began=stamp - boot.zero, seconds=seconds)


def _worth_showing(boot: Boot, end: float) -> list[Unit]:
    """Return our units, the services and targets that they waited for, and the longest ten, by start."""
    within = [unit for unit in boot.units if boot.zero <= unit.began <= end]
    awaited = {name for unit in within if unit.name in _OURS for name in unit.after}
    names = {*_OURS, *(name for name in awaited if name.endswith((".service", ".target")))}
    longest = sorted(within, key=lambda unit: -(unit.seconds or 0))[:_LONGEST]
    names |= {unit.name for unit in longest if unit.seconds}
    return sorted((unit for unit in within if unit.name in names), key=lambda unit: unit.began)


def _this_boot() -> Boot | None:
    """Ask systemd for the times of this boot. None where it does not run or does not answer."""
    if not systemd.is_running():
        return None
    try:
        manager = systemd.show([], ("KernelTimestamp", *(phase + _STAMP for phase in _PHASES)), _SECONDS)
        units = systemd.show(["*"], ("Id", "After", *(stamp + _STAMP for stamp in _UNIT)), _SECONDS)
    except OSError:
        return None
    return boot_of(manager[0], units) if manager and units else None


def boot_of(manager: Mapping[str, str], units: Sequence[Mapping[str, str]]) -> Boot | None:
    """Read the boot from the properties of systemd's manager and of all units; None when it is none."""
    stamps = {"initrd": _seconds(manager, "InitRD"), "userspace": _seconds(manager, "Userspace")}
    if stamps["userspace"] is None:
        return None
    # The kernel's start is the clock's zero, so its monotonic stamp is 0 in a container and elsewhere.
    has_kernel = manager.get("KernelTimestamp") not in (None, "", "n/a")
    phases = [("kernel", 0.0)] if has_kernel else []
    phases += [(name, stamp) for name, stamp in stamps.items() if stamp is not None]
    started = [unit for one in units for unit in _started(one)]
    return Boot(phases=phases, finish=_seconds(manager, "Finish"), units=started)


def _started(properties: Mapping[str, str]) -> Iterator[Unit]:
    """Yield the unit of these properties; nothing for a unit that was never started."""
    began = _seconds(properties, "InactiveExit")
    if began is None:
        return
    ends = (_seconds(properties, "ActiveEnter"), _seconds(properties, "InactiveEnter"))
    ended = next((end for end in ends if end is not None and end >= began), None)
    yield Unit(
        name=properties["Id"], began=began, seconds=None if ended is None else ended - began,
        after=properties.get("After", "").split(),
    )  # fmt: skip


def _seconds(properties: Mapping[str, str], name: str) -> float | None:
    """Return a time stamp in seconds. systemd counts microseconds, and writes 0 for never."""
    return int(properties.get(name + _STAMP, "") or 0) / 1e6 or None
