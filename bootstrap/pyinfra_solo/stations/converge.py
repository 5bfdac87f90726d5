"""Station converge: deploy.py through pyinfra, in a process of its own, with a deadline.

The checkout's engine runs it in the checkout's runtime (executor/). This side reads its events, logs
them as they come, and ends its whole session when the time is up.
"""

import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec.structs import replace

from pyinfra_solo import errors, protocol
from pyinfra_solo.errors import (
    ConvergeError,
    DataError,
    DeadlineError,
    JudgedError,
    RoleError,
    SoloError,
    SourceError,
    TrustError,
)
from pyinfra_solo.protocol import AnyEvent, Request
from pyinfra_solo.system import processes
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.redaction import without_secrets
from pyinfra_solo.system.text import escaped_json

_MAX_LINE = 16 << 20
"""Bytes of an event: a plan's diff is the longest."""
ENGINE = "bootstrap/pyinfra_solo"
"""The engine's folder in an ops repo."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The operations of a converge or a plan. checks: the roles', for the judge."""

    operations: Sequence[protocol.OperationEnded]
    checks: Sequence[dict[str, Any]]
    not_idempotent: Sequence[protocol.NotIdempotent] | None = None
    """Found by the idempotence check; None when it was not made."""

    @property
    def changed(self) -> int:
        """Count the operations that changed something."""
        return sum(operation.changed for operation in self.operations)

    def require_idempotent(self) -> None:
        """Raise JudgedError, naming every operation that would change something once more."""
        cure = 'set converge.idempotence = "report" in the settings. The gate stays closed.'
        if self.not_idempotent is None and self.changed:
            raise JudgedError(f"The ops repo's engine made no idempotence check. Update it, or {cure}")
        if self.not_idempotent:
            found = "; ".join(f"{one.name}: {', '.join(one.commands)}" for one in self.not_idempotent)
            raise JudgedError(
                f"Converged, but a second converge would change something: {found}. Make it idempotent, or {cure}"
            )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The python that converges and judges, and the environment that names the engine's folder."""

    python: Path
    environment: Mapping[str, str]


def engine_of(root: Path, python: Path) -> Engine:
    """Return the engine of the checkout `root`: its own, else the one that its lock file names.

    Raises DataError when it has neither.
    """
    environment = _environment()
    if (root / ENGINE / "__init__.py").exists():
        environment["PYTHONPATH"] = str((root / ENGINE).parent)
    elif not next(python.parent.parent.glob("lib/python3*/site-packages/pyinfra_solo/__init__.py"), None):
        raise DataError(
            f"The ops repo {root} has no engine: neither {ENGINE} nor pyinfra-solo in requirements.lock. Add one."
        )
    return Engine(python=python, environment=environment)


def engine_here(python: Path) -> Engine:
    """Return the engine that runs now, for when the checkout that converged is no longer there."""
    folder = Path(errors.__file__).parents[1]
    return Engine(python=python, environment=_environment() | {"PYTHONPATH": str(folder)})


def _environment() -> dict[str, str]:
    """Return this process's environment less PYTHON*, with what a boot unit may lack.

    PYTHONSAFEPATH: `python -m` would else import modules from root's working directory.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    kept |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}
    kept.setdefault("DEBIAN_FRONTEND", "noninteractive")
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    kept.setdefault("LANG", "C.UTF-8")
    kept.setdefault("HOME", "/root")
    return kept


def converge(
    request: Request,
    engine: Engine,
    *,
    deadline: Deadline,
    observe: Callable[[AnyEvent], None],
    events_file: Path | None,
    lock: Sequence[int],
) -> Changes:
    """Run the executor and return what it did.

    observe: is given each event as it comes. events_file: gets a copy of them. lock: descriptors of the
    run lock, which the executor holds too, so that the machine stays locked when this process is killed.
    Raises the error that the executor names; DeadlineError; ConvergeError when it ends without a result.
    """
    process = subprocess.Popen(
        [str(engine.python), "-m", protocol.EXECUTOR],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=engine.environment, cwd=request.root,
        start_new_session=True, pass_fds=tuple(lock),
    )  # fmt: skip
    reader = _EventReader(request)
    with _ended_by(deadline, process) as late:
        for event in _events(process, request, events_file, late):
            reader.read(event)
            observe(event)
        process.wait()
    if late.is_set():
        raise DeadlineError(
            f"Out of time while {reader.activity}. Raise limits.deadline, or find out why it takes so long."
        )
    return reader.result(process.returncode)


@contextmanager
def _ended_by(deadline: Deadline, process: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """End the process's whole session at the deadline, or when the block ends."""
    late = threading.Event()

    def end() -> None:
        late.set()
        processes.end_session(process.pid)

    timer = threading.Timer(deadline.left(), end)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        processes.end_session(process.pid)
        process.wait()
        if process.stdout:
            process.stdout.close()


def _events(
    process: subprocess.Popen[bytes], request: Request, events_file: Path | None, late: threading.Event
) -> Iterator[AnyEvent]:
    """Yield each event, logged as it comes: a killed run's file says which operation it was at."""
    assert process.stdin and process.stdout  # noqa: S101, PT018 - pipes were asked for
    with suppress(BrokenPipeError), process.stdin:  # it has ended already: `result` says how
        process.stdin.write(msgspec.json.encode(request))
    with _open_log(events_file) as log:
        for line in _lines(process.stdout.fileno(), late):
            event = protocol.decode_event(line) if line else None
            log.write(_logged(event, line) + b"\n")
            log.flush()
            if event:
                yield event


def _logged(event: AnyEvent | None, line: bytes) -> bytes:
    """Return the line for the log: without the secrets of checks, and with nothing that moves a terminal."""
    if isinstance(event, protocol.Declared):
        line = msgspec.json.encode(replace(event, checks=[without_secrets(check) for check in event.checks]))
    return escaped_json(line)


def _lines(descriptor: int, late: threading.Event) -> Iterator[bytes]:
    """Yield lines until the pipe's end, or `late`: a daemon that left the session may keep the pipe open.

    Raises ConvergeError for a line that is longer than any event.
    """
    rest = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not late.is_set():
        if not poll.poll(500):
            continue
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        *lines, last = chunk.split(b"\n")
        for line in lines:
            yield bytes(rest) + line
            rest.clear()
        rest += last
        if len(rest) > _MAX_LINE:
            raise ConvergeError(f"The ops repo's engine sent a line of more than {_MAX_LINE >> 20} MiB.")


def _open_log(path: Path | None) -> BinaryIO:
    """Open the log for root alone: output of a failure may hold anything. A full disk must not stop a run."""
    try:
        return open(path or os.devnull, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError:
        return Path(os.devnull).open("ab")


class _EventReader:
    def __init__(self, request: Request) -> None:
        self._request = request
        self.activity = "starting pyinfra"
        self._last: dict[type, Any] = {}
        self._operations: list[protocol.OperationEnded] = []

    def read(self, event: AnyEvent) -> None:
        """Raises ConvergeError for an executor of another protocol version."""
        once = isinstance(event, (protocol.Started, protocol.Declared, protocol.OperationsDeclared))
        if protocol.Done in self._last or (once and type(event) in self._last):
            raise ConvergeError(
                f"The ops repo's engine reported {type(event).__name__} out of its order. Update it."
            )
        self._last[type(event)] = event
        match event:
            case protocol.Started(protocol=version):
                protocol.require_version(image=protocol.VERSION, checkout=version)
            case protocol.OperationStarted(name=name):
                self.activity = f"the operation {name!r} was running"
            case protocol.OperationEnded():
                self._operations.append(event)
            case protocol.IdempotenceCheckStarted():
                self.activity = "the idempotence check was running"

    def result(self, status: int) -> Changes:
        """Return the changes of an executor that ended with `status`. Raises SoloError."""
        if failed := self._last.get(protocol.Failed):
            raise _error(failed)
        if status != 0 or not {protocol.Started, protocol.Declared, protocol.Done} <= self._last.keys():
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise ConvergeError(
                f"The converge ended with {how} while {self.activity}. See its last lines "
                "in the journal (`journalctl -t pyinfra-solo`)."
            )
        self._require_complete()
        checked = self._last.get(protocol.IdempotenceChecked)
        return Changes(
            operations=self._operations,
            checks=self._last[protocol.Declared].checks,
            not_idempotent=checked.operations if checked else None,
        )

    def _require_complete(self) -> None:
        """Raise ConvergeError unless each operation of the wanted role was reported once, and succeeded."""
        declared = self._last.get(protocol.OperationsDeclared)
        names = declared.names if declared else None
        wrong = (
            self._request.role not in self._last[protocol.Declared].roles
            or [operation.name for operation in self._operations] != names
            or any(operation.failed for operation in self._operations)
        )
        if wrong:
            raise ConvergeError(
                f"The ops repo's engine reported success, but not of all operations of {self._request.role!r}: "
                f"{len(self._operations)} ended, {'none' if names is None else len(names)} declared. Update it."
            )


def _error(failed: protocol.Failed) -> SoloError:
    """Return the executor's error as ours, by its exit status: units and scripts go by it.

    Not every kind can be an executor's: the lock and the gate by hand are the line's own affairs.
    """
    kinds = (ConvergeError, SourceError, TrustError, RoleError, DataError, DeadlineError, JudgedError)
    return next((kind for kind in kinds if kind.exit_code == failed.code), ConvergeError)(failed.message)
