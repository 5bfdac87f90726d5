"""Hold the deadline, console, lock and report of one run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pyinfra_solo import __version__, paths, protocol
from pyinfra_solo.errors import SoloError
from pyinfra_solo.gate import boot_id
from pyinfra_solo.report.records import Operation, Report, Station, new_run_id, now
from pyinfra_solo.report.store import ReportFile
from pyinfra_solo.run.console import PlainConsole
from pyinfra_solo.system.deadline import Deadline, Wait


class Progress(Protocol):
    """Is the part of a Run that stations use: its deadline, messages, and waits."""

    @property
    def deadline(self) -> Deadline: ...
    def say(self, text: str) -> None: ...
    def waited(self, wait: Wait) -> None: ...


class Run:
    """One run. Only this class and the lines (boot, plan, pyinfra_command) write its report.

    deadline: for all of it. keep_report: false for plans, which leave no report on disk.
    """

    def __init__(
        self, command: str, deadline: Deadline, console: PlainConsole, *, keep_report: bool = True
    ) -> None:
        self.deadline = deadline
        self.console = console
        self.began = time.monotonic()
        """Seconds on the monotonic clock."""
        self.report = Report(
            run=new_run_id(), command=command, started=now(), boot_id=boot_id(), engine=__version__,
            began=round(self.began, 3),
        )  # fmt: skip
        self.reports_kept = 30
        """Number of reports that stay on disk."""
        self.gate_in_doubt = False
        """The statement of an open gate may no longer be true: something was changed, or is being judged."""
        self.lock: tuple[int, ...] = ()
        """The run lock's descriptor. The executor holds it too: when this process is killed, the machine
        stays locked until the running operation has ended."""
        self.on_station: Callable[[str], None] = lambda _station: None
        """Called with each station's name: the run lock's file shows it to runs that wait."""
        self._file = ReportFile(self.report) if keep_report else None
        self._planned = 0

    @property
    def id(self) -> str:
        return self.report.run

    @property
    def events_file(self) -> Path | None:
        """The log of the executor's events; None for a run that keeps no report."""
        return paths.STATE / "reports" / f"{self.id}.events" if self._file else None

    @contextmanager
    def station(self, name: str) -> Iterator[Station]:
        """Time the station. Its start is written to disk at once, its end with the next station or `end`."""
        station = Station(name=name, started=self._elapsed())
        self.report.stations.append(station)
        self.report.station = name
        self.on_station(name)
        self.console.station(name, None, "running")
        self.save()
        try:
            self.deadline.check(f"coming to {name}")
            yield station
        except BaseException:
            station.outcome = "failed"
            raise
        else:
            station.outcome = "ok"
        finally:
            station.seconds = round(self._elapsed() - station.started, 3)
            self.console.station(name, station.seconds, station.outcome)

    def say(self, text: str) -> None:
        """Write a line to the console, and to the report under the current station."""
        if not self.report.stations:
            self.report.stations.append(Station(name="start", started=0.0, seconds=0.0, outcome="ok"))
        self.report.stations[-1].detail.append(text)
        self.console.say(self.report.station or "run", text)

    def waited(self, wait: Wait) -> None:
        """Report a failed try, and the pause after it."""
        self.report.stations[-1].waits.append(wait)
        self.console.say(
            self.report.station or "run", f"{wait.what}: {wait.why}; next try in {wait.seconds:.1f} s"
        )

    def record(self, **fields: Any) -> None:
        """Set fields of the report. Raises AttributeError for one that it does not have."""
        for name, value in fields.items():
            setattr(self.report, name, value)

    def observe(self, event: protocol.AnyEvent) -> None:
        """Report an event of a converge, and show it on the console."""
        if isinstance(event, protocol.OperationStarted):
            self.console.starting(event.name, event.number, self._planned)
        self.observe_plan(event)
        if isinstance(event, protocol.OperationEnded):
            done = self.report.operations
            self.console.operation(done[-1], len(done), self._planned)

    def observe_plan(self, event: protocol.AnyEvent) -> None:
        """Report an event of a converge or a plan, without showing its operations."""
        match event:
            case protocol.OperationsDeclared(names=names):
                self._planned = len(names)
            case protocol.OperationEnded():
                self.report.operations.append(msgspec.convert(event, Operation, from_attributes=True))
            case protocol.Evaluated(operations=count, seconds=seconds):
                self.say(f"evaluated {count} operations before the first change ({seconds:.2f} s)")
            case protocol.Changing():
                self.gate_in_doubt = True
            case protocol.GateClosed():
                self.say("gate closed before the first change")
            case protocol.NativeOff(reason=reason):
                self.say(reason)
            case protocol.IdempotenceChecked(operations=found, seconds=seconds):
                self.record(not_idempotent=found)
                changing = "; ".join(one.name for one in found)
                result = f"{changing} would change something once more" if found else "ok"
                self.say(f"idempotence check: {result} ({seconds:.2f} s)")

    def end(self, outcome: str, error: BaseException | None = None, *, exit_code: int = 0) -> None:
        """Write the run's outcome. An error other than SoloError has exit status 1."""
        self.record(outcome=outcome, seconds=self._elapsed(), exit_code=exit_code)
        if error is not None:
            code = error.exit_code if isinstance(error, SoloError) else 1
            self.record(exit_code=code, error=str(error) or type(error).__name__)
        self.save()
        if self._file:
            self._file.prune(self.reports_kept)

    def never_had_the_lock(self) -> None:
        """Keep last-run.json: the machine's last run is the one that has the lock."""
        if self._file:
            self._file.is_last = False

    def save(self) -> None:
        """Write the report. A full or read-only disk stops no run."""
        if not self._file:
            return
        before = self._file.problem
        self._file.write()
        if self._file.problem and self._file.problem != before:
            self.console.say("report", f"cannot be written: {self._file.problem}")

    def _elapsed(self) -> float:
        return round(time.monotonic() - self.began, 3)
