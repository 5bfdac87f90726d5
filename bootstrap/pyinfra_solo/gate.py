"""Station gate: `ping.html` on tmpfs is what a balancer asks for, and this module alone writes it.

Beside it, never served, stands a statement of what the open gate vouches for. A gate whose
statement is of another boot or another instance is closed.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pyinfra_solo import paths
from pyinfra_solo.errors import PausedError

_PING = "ping.html"


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What an open gate vouches for.

    checks: those that passed, as `checks.to_json` writes them, and python: the runtime that made
    them, so that they can be made again. at: seconds since the epoch, by this machine's clock.
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


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The gate as it is: open or not, since when (seconds since the epoch), and why."""

    open: bool
    reason: str
    since: float | None
    statement: Statement | None


def boot_id() -> str:
    """This boot's identity (random(4), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def close_gate(reason: str, *, reopenable: bool = False, gate: Path | None = None) -> bool:
    """Close it, whatever there is. True when it was open. The newest reason is kept for `status`,
    with the time since which it is closed.

    reopenable: the machine is as the statement says, and stays so: an operator may open it again.
    """
    gate = gate or paths.GATE
    _make(gate)
    was_open = (gate / _PING).exists()
    for path in sorted(gate.iterdir(), key=lambda path: path.name != _PING):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    said = _said(_closed(gate))
    since = time.time() if was_open else said.get("at", time.time())
    if not reopenable:
        _statement(gate).unlink(missing_ok=True)
    with suppress(OSError):  # a full tmpfs: it is closed all the same
        by_hand = time.monotonic() if reopenable else said.get("by_hand")
        _replace(_closed(gate), json.dumps({"reason": reason, "at": since, "by_hand": by_hand}))
    return was_open


def open_gate(statement: Statement, *, began: float | None = None, gate: Path | None = None) -> None:
    """Open it: the statement first, so that an open gate always has one, and ping.html by rename.

    began: of the run that opens it, on the monotonic clock. Raises PausedError when an operator has
    closed the gate since; the statement is written, so that `gate open` can open it.
    """
    gate = gate or paths.GATE
    _make(gate)
    said = _said(_closed(gate))
    if began is not None and (said.get("by_hand") or 0) > began:
        _replace(_statement(gate), json.dumps(asdict(statement)))
        raise PausedError(
            f"The gate was closed by hand while this run was at work ({said.get('reason')}). `pyinfra-solo gate open` opens it."
        )
    kept = _read(gate)
    if kept and (gate / _PING).exists() and _same(kept, statement):
        # In service as it was: the page is not touched, and it is open since then.
        if (kept.checks, kept.python) != (statement.checks, statement.python):
            _replace(_statement(gate), json.dumps(asdict(replace(statement, at=kept.at))))
        return
    _replace(_statement(gate), json.dumps(asdict(statement)))
    _replace(gate / _PING, "ok", via=gate.parent)
    _closed(gate).unlink(missing_ok=True)


def kept_statement(*, gate: Path | None = None) -> Statement | None:
    """What the gate vouched for when an operator closed it, if that was in this boot."""
    statement = _read(gate or paths.GATE)
    return statement if statement and statement.boot_id == boot_id() else None


def read_gate(instance_id: str | None = None, *, gate: Path | None = None) -> Gate:
    """The gate as it is. An open one that is not of this boot, or of another instance when
    `instance_id` is given, is closed here and now, if this process may."""
    gate = gate or paths.GATE
    page = _page(gate)
    if page is None:
        said = _said(_closed(gate))
        return Gate(
            open=False, reason=said.get("reason", "never opened"), since=said.get("at"), statement=None
        )
    statement = _read(gate)  # after ping.html, which is written after it
    problem = _problem(statement, instance_id)
    if problem is None and statement is not None:
        return Gate(open=True, reason="converged and judged", since=statement.at, statement=statement)
    if _page(gate) != page:
        return read_gate(instance_id, gate=gate)  # closed meanwhile, by who had a reason of their own
    if os.access(gate, os.W_OK):
        close_gate(problem or "no statement", gate=gate)
    return Gate(open=False, reason=problem or "no statement", since=time.time(), statement=None)


def _page(gate: Path) -> tuple[int, int] | None:
    """This very ping.html; another one's is another."""
    try:
        about = (gate / _PING).stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_ctime_ns


def _problem(statement: Statement | None, instance_id: str | None) -> str | None:
    if statement is None:
        return "ping.html had no statement"
    if statement.boot_id != boot_id():
        return "its statement was of another boot"
    if instance_id and statement.instance_id and statement.instance_id != instance_id:
        return f"its statement was of another instance, {statement.instance_id}"
    return None


def _same(one: Statement, other: Statement) -> bool:
    """Equal but for the run and the time: then the gate is left as it is, with its first time."""
    return replace(one, run="", at=0, checks=(), python="") == replace(
        other, run="", at=0, checks=(), python=""
    )


def _make(gate: Path) -> None:
    """The web server's account must be able to come in, whatever the umask of who makes it."""
    for folder in (gate.parent, gate):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        folder.chmod(0o755)


def _statement(gate: Path) -> Path:
    return gate.parent / "statement.json"


def _closed(gate: Path) -> Path:
    return gate.parent / "closed.json"


def _read(gate: Path) -> Statement | None:
    try:
        return Statement(**_said(_statement(gate)))
    except TypeError:
        return None


def _said(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _replace(path: Path, text: str, via: Path | None = None) -> None:
    """By rename, mode 0644. On tmpfs there is nothing to sync."""
    beside = (via or path.parent) / f".{path.name}.{os.getpid()}"
    beside.write_text(text)
    beside.chmod(0o644)
    beside.replace(path)
