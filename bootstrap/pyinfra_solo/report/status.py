"""Render what this machine is, whether it is in service, since when, and if not, why."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.gate import Gate, read_gate, to_json
from pyinfra_solo.report import store, text
from pyinfra_solo.report.records import Report
from pyinfra_solo.system import kept, lock
from pyinfra_solo.system.kept import Kept
from pyinfra_solo.system.text import printable


@dataclass(frozen=True, kw_only=True)
class Status:
    """The gate, the report of the last run, and the owner of the run lock."""

    gate: Gate
    last: Report | None
    running: lock.Owner | None
    kept: Sequence[Kept] = ()
    """Releases that stay although another one is wanted."""
    hidden: bool = False
    """The last run's report is there, and this account may not read it, nor the lock's owner."""

    @property
    def ready(self) -> bool:
        """True when the machine is in service: the gate is open."""
        return self.gate.open

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "ready": self.ready,
            "gate": to_json(self.gate),
            "running": asdict(self.running) if self.running else None,
            "kept": [asdict(one) for one in self.kept],
            "hidden": self.hidden,
            "last_run": msgspec.to_builtins(self.last) if self.last else None,
        }


def status() -> Status:
    """Read the gate, the last report, the run lock and the records of kept releases."""
    return Status(
        gate=read_gate(),
        last=store.last(),
        running=lock.owner(),
        kept=kept.read(paths.RUN / "kept"),
        hidden=store.last_is_hidden(),
    )


def lines(status: Status) -> list[str]:
    """Render a status for an operator: the machine, its gate, who runs now, and the last run."""
    known = status.gate.statement or status.last
    machine = text.machine(known) if known or not status.hidden else "only root may read its role"
    found = [f"machine   {machine}", _gate(status.gate)]
    found += [f"release   {one}" for one in status.kept]
    if status.running:
        found.append(f"running   {status.running}")
    if status.hidden:
        found.append("last run  only root may read it, and whether a run is at work. Run it as root.")
    elif status.last is None:
        found.append("last run  none")
    else:
        below = (text.totals(status.last), *text.stations(status.last))
        found += [*text.headline(status.last, "last run"), *(f"{'':10}{line}" for line in below)]
    return [printable(line) for line in found]


def _gate(gate: Gate) -> str:
    since = f" since {_time(gate.since)} ({_age(gate.since)})" if gate.since else ""
    if not (gate.open and gate.statement):
        return f"gate      {'open' if gate.open else 'closed'}{since}: {gate.reason}"
    checks = text.count(len(gate.statement.checks), "check")
    return f"gate      open{since}, at commit {gate.statement.sha[:12]}{'+changes' if gate.statement.sha.endswith('+changes') else ''}, {checks} passed"


def _time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _age(seconds: float) -> str:
    """Return the time passed in the largest whole unit; 0 s when the clock has stepped back."""
    passed = max(0, int(datetime.datetime.now(datetime.UTC).timestamp() - seconds))
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= size:
            return f"{passed // size} {name}"
    return f"{passed} s"
