"""What is this machine, is it in, since when, and if not, why not."""

import datetime
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from pyinfra_solo.gate import Gate, read_gate
from pyinfra_solo.report import records as report
from pyinfra_solo.report.records import Report
from pyinfra_solo.system import lock
from pyinfra_solo.system.text import printable


@dataclass(frozen=True, kw_only=True)
class Status:
    """The gate, the last run, and who runs now. `ready` is what the exit status says."""

    gate: Gate
    last: Report | None
    running: lock.Owner | None

    @property
    def ready(self) -> bool:
        return self.gate.open

    def to_json(self) -> dict[str, Any]:
        return {
            "ready": self.ready,
            "gate": asdict(self.gate),
            "running": asdict(self.running) if self.running else None,
            "last_run": msgspec.to_builtins(self.last) if self.last else None,
        }


def status() -> Status:
    return Status(gate=read_gate(), last=report.last(), running=lock.owner())


def lines(status: Status) -> list[str]:
    """A page for an operator; the first line answers the first question."""
    return [printable(line) for line in (_is(status), _in(status), *_running(status), *_last(status))]


def _is(status: Status) -> str:
    statement, last = status.gate.statement, status.last
    role = statement.role if statement else last.role if last else None
    stage = statement.stage if statement else last.stage if last else None
    instance = (statement and statement.instance_id) or (last and last.instance_id)
    who = f"{role}, {stage}" if role else "role not known yet"
    return f"machine   {who}" + (f", {instance}" if instance else "")


def _in(status: Status) -> str:
    since = f" since {_time(status.gate.since)} ({_ago(status.gate.since)})" if status.gate.since else ""
    if status.gate.open and status.gate.statement:
        return f"gate      open{since}, at commit {status.gate.statement.sha[:12]}, {len(status.gate.statement.checks)} checks passed"
    return f"gate      closed{since}: {status.gate.reason}"


def _running(status: Status) -> list[str]:
    return [f"now       {status.running}"] if status.running else []


def _last(status: Status) -> list[str]:
    last = status.last
    if last is None:
        return ["last run  none"]
    how: str = last.outcome
    if how == "running" and not status.running:
        how = "killed"
    head = f"last run  {last.run}, `{last.command}`: {how}"
    if last.exit_code:
        head += f", exit status {last.exit_code}"
    if last.sha:
        head += f", commit {last.sha[:12]} from {last.source}"
    found = [head]
    if last.error:
        found.append(f"why       {last.station}: {last.error}")
    elif how == "killed":
        found.append(f"why       it was killed at {last.station}")
    changed = sum(operation.changed for operation in last.operations)
    found.append(f"          {len(last.operations)} operations, {changed} changed")
    for station in last.stations:
        waits = f"  {len(station.waits)} waits" if station.waits else ""
        seconds = f"{station.seconds:6.1f} s" if station.seconds is not None else "       …"
        found.append(f"          {station.name:<11}{seconds}  {station.outcome}{waits}")
    return found


def _time(seconds: float | None) -> str:
    return (
        datetime.datetime.fromtimestamp(seconds or 0, datetime.UTC)
        .isoformat(timespec="seconds")
        .replace("+00:00", "Z")
    )


def _ago(seconds: float | None) -> str:
    passed = max(0, int(datetime.datetime.now(datetime.UTC).timestamp() - (seconds or 0)))
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= size:
            return f"{passed // size} {name}"
    return f"{passed} s"
