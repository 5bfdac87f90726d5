"""The gate: `ping.html` on tmpfs, for a balancer's health check. Only this module writes it.

Beside it, never served, stands a statement of what the open gate vouches for. A gate whose statement
is of another boot or another instance is closed. The statement and the reason of a closed gate hold
targets of checks and texts of failures, so they are for root alone.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pyinfra_solo import fence, paths
from pyinfra_solo.errors import PausedError
from pyinfra_solo.system import lock

PAGE = b"ok"
"""The contents of ping.html."""
_PING = "ping.html"
_STATEMENT = "statement.json"
_CLOSED = "closed.json"
_CHANGING = "changing.json"
"""Written before a run changes a machine under an open gate, and removed when the gate vouches anew."""
_LOCK = "gate.lock"
_NOT_SHOWN = "only root may read why"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """The facts that an open gate vouches for.

    checks: those that passed, as `checks.to_json` writes them, and python: the interpreter that ran
    them, so that they can be repeated. at: seconds since the epoch, by this machine's clock.
    """

    role: str
    stage: str
    sha: str
    boot_id: str
    instance_id: str | None
    checks: Sequence[Mapping[str, Any]]
    python: str
    run: str
    at: float
    kept: Sequence[str] = field(default_factory=list)
    """Releases that stay although another one is wanted (system/kept.py)."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The gate's state: open or not, since when (seconds since the epoch), and why."""

    open: bool
    reason: str
    since: float | None
    statement: Statement | None


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """Decides when a run closes the gate.

    at_boot: nothing that was true before this boot counts. drain: `limits.drain` of the settings, for a
    run on a machine in service.
    """

    at_boot: bool
    drain: str = "on-change"

    def before_run(self) -> None:
        """Close the gate, or check that an open one is of this boot."""
        if self.at_boot or self.drain == "always":
            close_gate("a run has begun")
        else:
            read_gate()

    def before_change(self) -> bool:
        """Close the gate before the first change. Return whether it was open."""
        # With "never" an open gate stays open; a closed one still loses the old statement.
        if self.drain == "never" and not self.at_boot and read_gate().open:
            with suppress(OSError):  # a full tmpfs: who cannot leave a mark closes the gate
                _write(_CHANGING, {"run": (lock.owner() or lock.Owner()).pid})
                return False
        return close_gate("a run is changing this machine")

    def on_failure(self, reason: str, *, in_doubt: bool) -> None:
        """Close the gate of a run that failed. in_doubt: its statement may no longer be true."""
        if self.at_boot or in_doubt:
            close_gate(reason)


def to_json(gate: Gate) -> dict[str, Any]:
    """Return plain JSON values to show: without the secrets of checks."""
    from pyinfra_solo.system.redaction import without_secrets  # 2 ms, for JSON alone

    shown = asdict(gate)
    if gate.statement:
        shown["statement"]["checks"] = [without_secrets(check) for check in gate.statement.checks]
    return shown


def boot_id() -> str:
    """Return this boot's identity (random(4), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def close_gate(reason: str, *, reopenable: bool = False) -> bool:
    """Close the gate, whatever stands there. Return whether it was open.

    The newest reason is kept for `status`, with the time since which the gate is closed.
    reopenable: the machine is as the statement says and stays so: an operator may reopen it.
    """
    _make_folders()
    with _alone():
        return _close(reason, reopenable=reopenable)


def _close(reason: str, *, reopenable: bool) -> bool:
    was_open = _ping().exists()
    for path in sorted(paths.GATE.iterdir(), key=lambda path: path.name != _PING):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    before = _read(_CLOSED)
    since = time.time() if was_open else before.get("at", time.time())
    if not reopenable:
        _beside(_STATEMENT).unlink(missing_ok=True)
        _beside(_CHANGING).unlink(missing_ok=True)
    if (problem := fence.problem()) not in reason:
        reason = f"{reason}; {problem}"
    with suppress(OSError):  # a full tmpfs: the gate is closed all the same
        by_hand = time.monotonic() if reopenable else before.get("by_hand")
        _write(_CLOSED, {"reason": reason, "at": since, "by_hand": by_hand})
    return was_open


def open_gate(statement: Statement, *, began: float | None = None) -> None:
    """Open the gate: write the statement first, then ping.html by rename.

    began: of the run that opens it, seconds on the monotonic clock. Raises PausedError when an operator
    has closed the gate since; the statement is written, so that `gate open` can open it.
    """
    _make_folders()
    with _alone():
        try:
            _open(statement, began)
        finally:
            _beside(_CHANGING).unlink(missing_ok=True)  # the run has come to its end


def _open(statement: Statement, began: float | None) -> None:
    closed = _read(_CLOSED)
    if began is not None and (closed.get("by_hand") or 0) > began:
        _write(_STATEMENT, asdict(statement))
        raise PausedError(
            f"The gate was closed by hand during this run ({closed.get('reason')}). `pyinfra-solo gate open` opens it."
        )
    current = _read_statement()
    if current and _ping().exists() and _vouch_for_the_same(current, statement):
        # In service as before: ping.html is not touched, and the gate is open since then.
        if _how_judged(current) != _how_judged(statement):
            _write(_STATEMENT, asdict(replace(statement, at=current.at)))
        return
    _write(_STATEMENT, asdict(statement))
    _replace(_ping(), PAGE.decode(), 0o644)
    _beside(_CLOSED).unlink(missing_ok=True)


def kept_statement() -> Statement | None:
    """Return the statement that was kept when an operator closed the gate, if that was in this boot."""
    statement = _read_statement()
    return statement if statement and statement.boot_id == boot_id() else None


def close_unfinished() -> None:
    """Close the gate when a run began to change this machine under it, and did not end.

    Only the holder of the run lock may call this: it knows that no such run is at work.
    """
    if _beside(_CHANGING).exists():
        run = _read(_CHANGING).get("run") or "?"
        close_gate(f"run {run} began to change this machine under an open gate, and did not end")


def read_gate(instance_id: str | None = None) -> Gate:
    """Return the gate's state. Close an open gate whose statement is wrong, if this process may.

    Wrong: not of this boot, or of another instance when `instance_id` is given; or a run began to change
    the machine and was killed. Another account than root gets no statement: an open gate is then as its
    page says.
    """
    if _beside(_CHANGING).exists():
        with lock.held_if_free() as is_held:
            if is_held:
                close_unfinished()
    ping = _identity()
    if ping is None:
        closed = _read(_CLOSED)
        reason = closed.get("reason", _NOT_SHOWN if _is_hidden(_CLOSED) else "never opened")
        return Gate(open=False, reason=reason, since=closed.get("at"), statement=None)
    statement = _read_statement()  # after ping.html, which is written after it
    if statement is None and _is_hidden(_STATEMENT):
        return Gate(open=True, reason=_NOT_SHOWN, since=None, statement=None)
    if statement is None:
        problem = "ping.html had no statement"
    elif statement.boot_id != boot_id():
        problem = "its statement was of another boot"
    elif instance_id and statement.instance_id and statement.instance_id != instance_id:
        problem = f"its statement was of another instance, {statement.instance_id}"
    else:
        return Gate(open=True, reason="converged and judged", since=statement.at, statement=statement)
    if _identity() != ping:
        return read_gate(instance_id)  # another process has closed it meanwhile
    if os.access(paths.GATE, os.W_OK):
        close_gate(problem)
    return Gate(open=False, reason=problem, since=time.time(), statement=None)


@contextmanager
def _alone() -> Iterator[None]:
    """Let no other process open or close the gate meanwhile: an operator's close must not be lost.

    Waits 5 s at most for a process that was stopped: a gate can always be closed.
    """
    try:
        descriptor = os.open(_beside(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # a full tmpfs
        yield
        return
    try:
        lock.flock(descriptor, time.monotonic() + 5)
        yield
    finally:
        os.close(descriptor)


def _identity() -> tuple[int, int] | None:
    """Return inode and ctime of ping.html, to notice that it was replaced. None: it is not there."""
    try:
        about = _ping().stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_ctime_ns


def _vouch_for_the_same(one: Statement, other: Statement) -> bool:
    """Compare all but the run, the time, and how the checks were performed."""
    return one == replace(other, run=one.run, at=one.at, checks=one.checks, python=one.python, kept=one.kept)


def _how_judged(statement: Statement) -> tuple[object, ...]:
    return statement.checks, statement.python, statement.kept


def _make_folders() -> None:
    """Make the folders 0755 whatever the umask: the web server's account must be able to enter."""
    for folder in (paths.GATE.parent, paths.GATE):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        folder.chmod(0o755)


def _ping() -> Path:
    return paths.GATE / _PING


def _beside(name: str) -> Path:
    return paths.GATE.parent / name


def _read_statement() -> Statement | None:
    try:
        return Statement(**_read(_STATEMENT))
    except TypeError:
        return None


def _read(name: str) -> dict[str, Any]:
    try:
        found = json.loads(_beside(name).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_hidden(name: str) -> bool:
    """Find a file that this process may not read."""
    return _beside(name).exists() and not os.access(_beside(name), os.R_OK, effective_ids=True)


def _write(name: str, values: Mapping[str, Any]) -> None:
    _replace(_beside(name), json.dumps(values), 0o600)


def _replace(path: Path, text: str, mode: int) -> None:
    """Write a file by rename, from beside the gate. tmpfs has nothing to sync."""
    beside = _beside(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(descriptor, mode)
    beside.replace(path)
