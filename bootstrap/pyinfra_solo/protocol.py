"""Define what two engines say to each other: options, requests, events, answers and module names.

The engine baked into an image starts the engine of a checkout, which may be older or newer, as
`python -m EXECUTOR` and `python -m CHECKS`, and both speak JSON over pipes: one request on stdin, then
events (one object a line) or one answer on stdout. Each side refuses another VERSION by its number.

From release 0.1 on this file changes by addition only: a new field has a default, and a new event may
be ignored by an engine that does not know it.
"""

from typing import Any, Literal, TypeVar, get_args

import msgspec

from pyinfra_solo.errors import ConvergeError

VERSION = 1
EXECUTOR = "pyinfra_solo.executor"
CHECKS = "pyinfra_solo.checks"

Mode = Literal["converge", "plan", "blank"]
"""converge; plan: gather facts and change nothing; blank: plan a machine with nothing on it."""
Drain = Literal["on-change", "always", "never"]
"""When a run by hand on a machine in service closes the gate."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every message. Unknown fields are ignored, unless the message says otherwise."""


class Asked(Message, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what the line asks: an engine that does not know a field that is set must refuse it."""


class RunOptions(Asked, frozen=True):
    """What the command line, or the boot unit, asks of a run.

    data: values of roles as typed, KEY to text. at_boot: nothing that was true before this boot counts.
    open_gate: false leaves the gate closed at the end. native: false runs pyinfra's shell commands for
    all facts and operations.
    """

    role: str | None = None
    stage: str | None = None
    ref: str | None = None
    data: dict[str, str] = {}
    at_boot: bool = False
    open_gate: bool = True
    native: bool = True


class Request(Asked, frozen=True):
    """What the executor is to do. root: the checkout. role, stage: as resolved.

    operation_timeout: seconds for a command that sets no `_timeout` of its own. drain: see GatePolicy.
    """

    protocol: int
    root: str
    role: str
    stage: str
    mode: Mode
    operation_timeout: float
    drain: Drain
    options: RunOptions


class ChecksRequest(Asked, frozen=True):
    """The checks to perform, as `checks.to_json` writes them, all within `seconds`."""

    protocol: int
    checks: list[dict[str, Any]]
    seconds: float


class ChecksAnswer(Message, frozen=True):
    """A finding (`checks.Finding`) for each check, in the order of the request."""

    protocol: int
    findings: list[dict[str, Any]]


class Event(Message, frozen=True, tag_field="event", tag=lambda name: name):
    """Base of what the executor reports."""


class Started(Event, frozen=True):
    """The executor has read the request. Always the first event."""

    protocol: int


class Declared(Event, frozen=True):
    """The roles are loaded. checks: theirs, as `checks.to_json` writes them, with their secrets."""

    roles: list[str]
    checks: list[dict[str, Any]]


class OperationsDeclared(Event, frozen=True):
    """deploy.py has declared operations of these names, in this order."""

    names: list[str]


class OperationStarted(Event, frozen=True):
    """The operation of this number, from 1, has started."""

    number: int
    name: str


class Wait(Message, frozen=True):
    """A child process or fact that an operation waited for, and for how many seconds."""

    what: str
    seconds: float


class OperationEnded(Event, frozen=True, omit_defaults=True):
    """An operation has ended. changed: in a plan, would change.

    began: seconds on the monotonic clock. cpu: seconds, user and system, of the executor and of the
    children that it waited for. waits: the longest first. output: the last lines of what failed, or
    pyinfra's warnings. diff: for a plan.
    """

    name: str
    changed: bool
    failed: bool = False
    began: float | None = None
    seconds: float = 0.0
    cpu: float | None = None
    waits: list[Wait] = []
    output: list[str] = []
    diff: list[str] = []


class Evaluated(Event, frozen=True):
    """Before the first change, this operation and all later ones were evaluated. seconds: that took."""

    operations: int
    seconds: float


class Changing(Event, frozen=True):
    """The first operation that changes the machine is about to start."""


class GateClosed(Event, frozen=True):
    """The gate was open, and is closed before the first change."""


class IdempotenceCheckStarted(Event, frozen=True):
    """After a converge that changed something, each operation is evaluated once more."""


class NotIdempotent(Message, frozen=True):
    """An operation that would change something once more. commands: in short, without arguments."""

    name: str
    commands: list[str]


class IdempotenceChecked(Event, frozen=True):
    """The idempotence check has ended, after `seconds`."""

    operations: list[NotIdempotent]
    seconds: float


class NativeOff(Event, frozen=True):
    """Native facts and commands are off as a whole. reason: a line for the log."""

    reason: str


class Failed(Event, frozen=True):
    """The converge has failed. code: the exit status of the error's kind (errors.py)."""

    code: int
    message: str


class Done(Event, frozen=True):
    """Every operation has succeeded."""


AnyEvent = (
    Started | Declared | OperationsDeclared | OperationStarted | OperationEnded | Evaluated | Changing | GateClosed
    | IdempotenceCheckStarted | IdempotenceChecked | NativeOff | Failed | Done
)  # fmt: skip

T = TypeVar("T", Request, ChecksRequest)


class _Numbered(msgspec.Struct):
    """The one field that is read before anything else of a message."""

    protocol: int


def decode_request(text: bytes, kind: type[T]) -> T:
    """Decode what the line asks.

    Raises ConvergeError for another VERSION, or a message that is not understood.
    """
    try:
        require_version(image=msgspec.json.decode(text, type=_Numbered).protocol, checkout=VERSION)
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise ConvergeError(
            f"The ops repo's engine does not understand the image's request: {error}. "
            "Update the engine in the ops repo, or bake a new image."
        ) from error


def decode_event(line: bytes) -> AnyEvent | None:
    """Decode one line of the executor. None for an event that this engine does not know.

    Raises ConvergeError for a line that is no event, or a known event that is malformed.
    """
    try:
        return _EVENTS.decode(line)
    except msgspec.MsgspecError as error:
        try:
            known = msgspec.json.decode(line, type=_Tagged).event in _KNOWN
        except msgspec.MsgspecError:
            known = True
        if known:
            raise ConvergeError(
                f"The ops repo's engine sent an event that is not understood: {error}. Update it, or bake a new image."
            ) from error
        return None


def decode_answer(text: bytes) -> ChecksAnswer:
    """Decode the answer of the checks. Raises ConvergeError for another VERSION, MsgspecError."""
    require_version(image=VERSION, checkout=msgspec.json.decode(text, type=_Numbered).protocol)
    return msgspec.json.decode(text, type=ChecksAnswer)


class _Tagged(msgspec.Struct):
    event: str


_KNOWN = {kind.__name__ for kind in get_args(AnyEvent)}
_EVENTS: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def require_version(*, image: int, checkout: int) -> None:
    """Raise ConvergeError unless the image's engine and the checkout's speak the same version."""
    if image != checkout:
        cure = "Bake a new image." if image < checkout else "Update the engine in the ops repo."
        raise ConvergeError(f"The image's engine speaks protocol {image}, the ops repo's {checkout}. {cure}")
