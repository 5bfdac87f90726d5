"""Station report: what a run did, station by station, as JSON of a published schema.

The whole file is replaced at every step, so a run that is killed leaves a valid report that says
where it was. `docs/report.schema.json` is made from these classes.
"""

import datetime
import errno
import secrets
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.checks import Finding
from pyinfra_solo.errors import SoloError, UsageError
from pyinfra_solo.system import durable
from pyinfra_solo.system.deadline import Wait

SCHEMA_VERSION = 1


class StationName(StrEnum):
    """The stations of the line, by the names that the report shows."""

    CLOSE_GATE = "close gate"
    IDENTIFY = "identify"
    FETCH = "fetch"
    PREPARE = "prepare"
    RESOLVE = "resolve"
    CONVERGE = "converge"
    JUDGE = "judge"
    OPEN_GATE = "open gate"
    PLAN = "plan"


class Record(msgspec.Struct, kw_only=True, omit_defaults=False):
    """A part of a report."""


class Waited(Record, kw_only=True):
    """What an operation waited for, such as `fact ReleaseState` or `sh packages`, and how many seconds."""

    what: str
    seconds: float


class Operation(Record, kw_only=True):
    """One operation. changed: for a plan, would change. output: the last lines of what failed."""

    name: str
    changed: bool
    failed: bool = False
    seconds: float = 0.0
    output: list[str] = []
    diff: list[str] = []
    began: float | None = None
    """Seconds on the monotonic clock."""
    cpu: float | None = None
    """Seconds, user and system, of pyinfra's process and of the children that it waited for."""
    waits: list[Waited] = []
    """The longest first."""


class NotIdempotent(Record, kw_only=True):
    """An operation that a second look, after the converge, found would change something again."""

    name: str
    commands: list[str]


class Station(Record, kw_only=True):
    """One station of the line. started: seconds after the run's start."""

    name: str
    started: float
    seconds: float | None = None
    outcome: Literal["running", "ok", "failed"] = "running"
    detail: list[str] = []
    waits: list[Wait] = []


class Report(Record, kw_only=True):
    """A run. outcome: running (or killed), ready, done (without the gate), failed, or planned."""

    schema: int = SCHEMA_VERSION
    run: str
    command: str
    started: str
    """RFC 3339, by this machine's clock, which may be wrong at boot."""
    boot_id: str
    engine: str
    began: float | None = None
    """Seconds on the monotonic clock (clock_gettime(2)), which in a container is the host's."""
    seconds: float | None = None
    outcome: Literal["running", "ready", "done", "failed", "planned"] = "running"
    exit_code: int | None = None
    error: str | None = None
    station: str | None = None
    """The one it is at, or ended at."""
    instance_id: str | None = None
    role: str | None = None
    stage: str | None = None
    sha: str | None = None
    source: str | None = None
    """Where the commit came from; `disk` means that no remote answered."""
    gate: Literal["open", "closed"] | None = None
    stations: list[Station] = []
    operations: list[Operation] = []
    not_idempotent: list[NotIdempotent] = []
    findings: list[Finding] = []


def new_run_id() -> str:
    """Sortable by time, unique even when the clock steps back."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a report."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Report)}


def encode(report: Report) -> bytes:
    """UTF-8 always: what it tells of, a command line or git's output, need not be."""
    try:
        text = msgspec.json.encode(report)
    except UnicodeEncodeError:
        text = msgspec.json.encode(_utf8(msgspec.to_builtins(report)))
    return msgspec.json.format(text, indent=2) + b"\n"


def _utf8(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_utf8(one) for one in value]
    if isinstance(value, dict):
        return {key: _utf8(one) for key, one in value.items()}
    return value


class ReportFile:
    """Keeps reports/<run>.json and last-run.json in step with a report in memory.

    A full or read-only disk must not stop a run, and the reason must be readable all the same: then
    the report goes to the tmpfs of the gate.
    """

    def __init__(self, report: Report, state: Path | None = None, run: Path | None = None) -> None:
        self.report = report
        self._state = state or paths.STATE
        self._run = run or paths.RUN
        self.problem: str | None = None
        self.is_last = True
        """Whether this run is the machine's last one, for last-run.json."""

    def write(self) -> None:
        text = encode(self.report)
        try:
            (self._state / "reports").mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.write(self._state / "reports" / f"{self.report.run}.json", text, 0o600)
            self.problem = None
            if not self.is_last:
                return
            durable.write(self._state / "last-run.json", text, 0o600)
            (self._run / "last-run.json").unlink(missing_ok=True)
        except OSError as error:
            self.problem = f"{self._state}: {errno.errorcode.get(error.errno or 0, '')} {error.strerror}"
            if self.is_last:
                self._write_beside(text)

    def _write_beside(self, text: bytes) -> None:
        try:
            self._run.mkdir(mode=0o755, parents=True, exist_ok=True)
            durable.write(self._run / "last-run.json", text, 0o600)
        except OSError as error:
            self.problem = f"{self.problem}; {self._run}: {error.strerror}"

    def prune(self, keep: int) -> None:
        """Remove all but the newest `keep` reports; never this run's, which a clock that stepped back
        names as the oldest."""
        others = sorted(
            path for path in (self._state / "reports").glob("*.json") if path.stem != self.report.run
        )
        with suppress(OSError):  # a read-only disk
            for path in others[: max(0, len(others) + 1 - keep)]:
                path.unlink(missing_ok=True)
                path.with_suffix(".events").unlink(missing_ok=True)


def read(run: str | None = None) -> Report:
    """The report of a run; without `run`, of the last one.

    Raises SoloError when there is none, or none that can be read; UsageError for a run that is not
    there; PermissionError for who is not root.
    """
    reports = paths.STATE / "reports"
    found = [] if run else [folder / "last-run.json" for folder in (paths.RUN, paths.STATE)]
    if run:
        with suppress(FileNotFoundError):
            known = sorted((path.stem for path in reports.iterdir() if path.suffix == ".json"), reverse=True)
            if known and run not in known:
                newest = ", ".join(known[:10])
                raise UsageError(f"There is no report of a run {run!r}. The newest there are: {newest}.")
            found = [reports / f"{name}.json" for name in known if name == run]
    for path in found:
        with suppress(FileNotFoundError):
            return _decoded(path)
    raise SoloError("There is no report yet: nothing has run on this machine. `pyinfra-solo run` makes one.")


def _decoded(path: Path) -> Report:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.MsgspecError as error:
        raise SoloError(
            f"{path} is not a report that this engine can read ({error}). See `journalctl -t pyinfra-solo`."
        ) from error


def last(state: Path | None = None, run: Path | None = None) -> Report | None:
    """The last run's report, or None when there is none that can be read."""
    for folder in (run or paths.RUN, state or paths.STATE):
        try:
            return msgspec.json.decode((folder / "last-run.json").read_bytes(), type=Report)
        except (OSError, msgspec.MsgspecError):
            continue
    return None
