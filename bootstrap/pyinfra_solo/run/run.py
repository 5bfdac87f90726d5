"""What accompanies a run down the line: its time, its voice, its lock and its report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pyinfra_solo import __version__
from pyinfra_solo.errors import SoloError
from pyinfra_solo.gate import boot_id
from pyinfra_solo.report.records import Operation, Report, Station, new_run_id, now
from pyinfra_solo.report.store import ReportFile
from pyinfra_solo.system.deadline import Deadline, Wait


class Console(Protocol):
    """Where a run is heard. stderr in all cases; see talk.py."""

    def station(self, name: str, seconds: float | None, outcome: str) -> None: ...
    def say(self, station: str, text: str) -> None: ...
    def operation(self, operation: Operation, number: int, of: int) -> None: ...
    def starting(self, name: str, number: int, of: int) -> None: ...


class Run:
    """One run: stations report through it, and it alone touches the report.

    deadline: for all of it. `quiet` runs (plans) leave no report on disk.
    """

    def __init__(
        self, command: str, deadline: Deadline, console: Console, *, keep_report: bool = True
    ) -> None:
        self.deadline = deadline
        self.console = console
        self._began = time.monotonic()
        self.report = Report(
            run=new_run_id(), command=command, started=now(), boot_id=boot_id(), engine=__version__,
            began=round(self._began, 3),
        )  # fmt: skip
        self._file = ReportFile(self.report) if keep_report else None
        self.keep = 30
        """How many reports stay on disk."""
        self.changing = False
        """An operation has begun to change the machine."""
        self.lock: tuple[int, ...] = ()
        """The run lock's descriptor. The converge's process holds it too: when this one is killed, the
        machine is not free before the operation at hand has ended."""
        self.at: Callable[[str], None] = lambda _station: None
        """Told of each station; the run lock's file shows it to whoever waits."""

    @property
    def keeps_report(self) -> bool:
        return self._file is not None

    @property
    def began(self) -> float:
        """Seconds on the monotonic clock."""
        return self._began

    @property
    def id(self) -> str:
        return self.report.run

    @contextmanager
    def station(self, name: str) -> Iterator[Station]:
        """Time the station. Its beginning is written down at once, its end with what comes next."""
        station = Station(name=name, started=self._since())
        self.report.stations.append(station)
        self.report.station = name
        self.at(name)
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
            station.seconds = round(self._since() - station.started, 3)
            self.console.station(name, station.seconds, station.outcome)

    def say(self, text: str) -> None:
        """A line in the log and in the report, under the station that the run is at."""
        if not self.report.stations:
            self.report.stations.append(Station(name="start", started=0.0, seconds=0.0, outcome="ok"))
        self.report.stations[-1].detail.append(text)
        self.console.say(self.report.station or "run", text)

    def waited(self, wait: Wait) -> None:
        self.report.stations[-1].waits.append(wait)
        self.console.say(
            self.report.station or "run", f"{wait.what}: {wait.why}; again in {wait.seconds:.1f} s"
        )

    def touched(self) -> bool:
        """Something on the machine was changed, or its checks said no: its gate may not stay open."""
        return self.changing or self.report.station in ("judge", "open gate")

    def end(self, outcome: str, error: BaseException | None = None, *, exit_code: int = 0) -> None:
        """Write the last word. A failure without a name of ours is exit status 1."""
        self.report.outcome = outcome  # type: ignore[assignment]
        self.report.seconds = self._since()
        self.report.exit_code = exit_code
        if error is not None:
            self.report.exit_code = error.exit_code if isinstance(error, SoloError) else 1
            self.report.error = str(error) or type(error).__name__
        self.save()
        if self._file:
            self._file.prune(self.keep)

    def gives_way(self) -> None:
        """It never had the lock: the machine's last run is the one that has."""
        if self._file:
            self._file.is_last = False

    def save(self) -> None:
        if not self._file:
            return
        before = self._file.problem
        self._file.write()
        if self._file.problem and self._file.problem != before:
            self.console.say("report", f"cannot be written: {self._file.problem}")

    def _since(self) -> float:
        return round(time.monotonic() - self._began, 3)
