"""One run at a time: flock(2), so that a killed owner holds nothing, and a file that says who owns it."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.errors import LockedError
from pyinfra_solo.system.deadline import Deadline


@dataclass(frozen=True)
class Owner:
    """Who holds the lock: process id, what it does now, and for how many seconds it has held it."""

    pid: int
    doing: str
    age: float

    def __str__(self) -> str:
        return f"run {self.pid}, which has held the lock for {self.age:.0f} s and is at {self.doing}"


_SIZE = 4096
"""Bytes of what the file says, padded: one write, so that who waits never reads half of it."""


class RunLock:
    """The held lock. `at(station)` tells those who wait what its owner does."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._since = time.monotonic()

    def at(self, station: str) -> None:
        said = {"pid": os.getpid(), "doing": station[:200], "since": self._since}
        os.pwrite(self.descriptor, json.dumps(said).encode().ljust(_SIZE), 0)


def owner(path: Path | None = None) -> Owner | None:
    """Who holds the lock, or None when it is free, or not to be seen: only root may read the file,
    because who can open a file can also lock it, and hold up every run (flock(2))."""
    path = path or paths.RUN / "lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(os.pread(descriptor, _SIZE, 0))
    finally:
        os.close(descriptor)
    return None


def _said(text: bytes) -> Owner:
    try:
        said = json.loads(text)
        return Owner(
            pid=int(said["pid"]), doing=str(said["doing"]), age=time.monotonic() - float(said["since"])
        )
    except (ValueError, KeyError, TypeError):
        return Owner(pid=0, doing="its start", age=0.0)


@contextmanager
def held(
    doing: str, deadline: Deadline, say: Callable[[str], None], path: Path | None = None
) -> Iterator[RunLock]:
    """Hold the run lock. Raises LockedError, naming the owner, when it is not free by the deadline."""
    path = path or paths.RUN / "lock"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, deadline, say)
        lock = RunLock(descriptor)
        lock.at(doing)
        yield lock
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, deadline: Deadline, say: Callable[[str], None]) -> None:
    """The lock is tried twice at least: `owner` holds it for a moment to see whether it is free."""
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = _said(os.pread(descriptor, _SIZE, 0))
            if told and deadline.left() <= 0:
                raise LockedError(f"Another run is at work: {who}. Wait for it, or end it.") from None
            if not told:
                say(f"waiting for {who}")
                told = True
            time.sleep(0.2)
        else:
            return
