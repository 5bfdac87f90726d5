"""The records of a report, station by station, their JSON and its published schema.

`make schema` writes docs/report.schema.json from these classes, docstrings included.
"""

import datetime
import secrets
from enum import StrEnum
from typing import Any, Literal

import msgspec

from pyinfra_solo.checks import Finding
from pyinfra_solo.protocol import NotIdempotent
from pyinfra_solo.system.deadline import Wait
from pyinfra_solo.system.text import escaped_json

SCHEMA_VERSION = 1


class StationName(StrEnum):
    """The name of a station of the line, as reports, console and lock file show it."""

    CLOSE_GATE = "close gate"
    IDENTIFY = "identify"
    FETCH = "fetch"
    PREPARE = "prepare"
    RESOLVE = "resolve"
    CONVERGE = "converge"
    JUDGE = "judge"
    OPEN_GATE = "open gate"
    PLAN = "plan"


class Record(msgspec.Struct, kw_only=True):
    """A part of a report."""


class Waited(Record, kw_only=True):
    """A wait of an operation, in seconds. what: such as `fact ReleaseState` or `sh packages`."""

    what: str
    seconds: float


class Operation(Record, kw_only=True):
    """An operation. changed: in a plan, would change. output: the last lines of a failed one."""

    name: str
    changed: bool
    failed: bool = False
    seconds: float = 0.0
    output: list[str] = []
    diff: list[str] = []
    began: float | None = None
    """Its start, in seconds on the monotonic clock."""
    cpu: float | None = None
    """CPU seconds, user and system, of pyinfra's process and of the children that it waited for."""
    waits: list[Waited] = []
    """The longest ones, the longest first."""


class Station(Record, kw_only=True):
    """A station of the line. name: a StationName. started: seconds after the run's start."""

    name: str
    started: float
    seconds: float | None = None
    outcome: Literal["running", "ok", "failed"] = "running"
    detail: list[str] = []
    waits: list[Wait] = []


class Report(Record, kw_only=True):
    """A run. outcome: `running` also when it was killed; `done` is `ready` without opening the gate."""

    schema: int = SCHEMA_VERSION
    run: str
    command: str
    started: str
    """RFC 3339, by the machine's clock, which may be wrong at boot."""
    boot_id: str
    engine: str
    began: float | None = None
    """Its start, in seconds on the monotonic clock (clock_gettime(2)); a container has its host's."""
    seconds: float | None = None
    outcome: Literal["running", "ready", "done", "failed", "planned"] = "running"
    exit_code: int | None = None
    error: str | None = None
    station: str | None = None
    """The station that it is at, or ended at."""
    instance_id: str | None = None
    role: str | None = None
    stage: str | None = None
    sha: str | None = None
    source: str | None = None
    """The remote that the commit came from; `disk` when no remote answered."""
    gate: Literal["open", "closed"] | None = None
    stations: list[Station] = []
    operations: list[Operation] = []
    not_idempotent: list[NotIdempotent] = []
    """Found by the idempotence check after the converge."""
    findings: list[Finding] = []


def new_run_id() -> str:
    """Make a run's id: sortable by time, and unique even when the clock steps back."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def now() -> str:
    """Return the time in RFC 3339 form, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a report."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Report)}


def encode(report: Report) -> bytes:
    """Return the report as JSON in UTF-8. Controls, and bytes that are no UTF-8 (PEP 383), become escapes.

    Command lines and git's messages may hold such characters.
    """
    try:
        text = msgspec.json.encode(report)
    except UnicodeEncodeError:
        text = msgspec.json.encode(_escaped(msgspec.to_builtins(report)))
    return escaped_json(msgspec.json.format(text, indent=2)) + b"\n"


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    return value
