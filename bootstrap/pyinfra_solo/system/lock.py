"""Lets one run work at a time, by flock(2) on a file that names its owner; a killed owner loses it."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.errors import LockedError
from pyinfra_solo.system.deadline import Deadline

_SIZE = 4096
"""Bytes of the file's text, padded: it is written at once, so that nobody reads half of it."""

_LOCKS_SIZE = 1 << 20
"""Bytes of /proc/locks that are read."""


@dataclass(frozen=True)
class Owner:
    """The holder of the lock. age: seconds since it took the lock. pid: none when the file lacks it.

    other: a process that holds the lock and is no run of ours.
    """

    pid: int | None = None
    station: str = ""
    age: float = 0.0
    other: int | None = None

    def __str__(self) -> str:
        if self.other is not None:
            return f"process {self.other}{_program(self.other)}, which does not call itself a run of pyinfra-solo"
        if self.pid is None:
            return "an unknown process"
        return f"run {self.pid}, which has held the lock for {self.age:.0f} s and is at {self.station}"


class RunLock:
    """The lock while it is held. `at(station)` shows those who wait where its owner is."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._since = time.monotonic()

    def at(self, station: str) -> None:
        text = {"pid": os.getpid(), "station": station[:200], "since": self._since}
        os.pwrite(self.descriptor, json.dumps(text).encode().ljust(_SIZE), 0)


def owner(path: Path | None = None) -> Owner | None:
    """Name the holder of the lock; None when it is free, and for all but root.

    Only root may read the file: whoever can open it can also lock it, and hold up every run (flock(2)).
    """
    path = path or paths.RUN / "lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _named_in(descriptor: int) -> Owner:
    """Read the holder from the file, unless the kernel knows another: a killed run leaves its name there."""
    named = _text_of(descriptor)
    if named.pid is not None and _holds(named.pid, descriptor):
        return named
    holder = _holder(descriptor)
    return named if holder in (None, named.pid) else Owner(other=holder)


def _holds(pid: int, descriptor: int) -> bool:
    """Check whether a process of this account holds the lock (proc(5), fdinfo)."""
    with suppress(OSError):
        if Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            return False
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if link.readlink() != path or not os.path.samestat(link.stat(), os.fstat(descriptor)):
                    continue
                if f" FLOCK  ADVISORY  WRITE {pid} " in Path(f"/proc/{pid}/fdinfo/{link.name}").read_text():
                    return True
    return False


def _holder(descriptor: int) -> int | None:
    """Return the process that took the lock (proc(5), /proc/locks); None when it is not shown here.

    Any account can take locks without number, and the time to read them grows by their square.
    """
    about = os.fstat(descriptor)
    file = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    with suppress(OSError, ValueError, IndexError):
        with Path("/proc/locks").open("rb") as locks:
            lines = locks.read(_LOCKS_SIZE).decode().splitlines()
        for line in lines:
            words = line.split()
            if words[1] == "FLOCK" and words[5] == file and int(words[4]) > 0:
                return int(words[4])
    return None


def _program(pid: int) -> str:
    """Return ` (NAME)` of a process, which may have any characters, or ""."""
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text(errors='replace').rstrip()})"
    except OSError:
        return ""


def _text_of(descriptor: int) -> Owner:
    try:
        text = json.loads(os.pread(descriptor, _SIZE, 0))
        age = time.monotonic() - float(text["since"])
        return Owner(pid=int(text["pid"]), station=str(text["station"]), age=age)
    except (ValueError, KeyError, TypeError):
        return Owner()


@contextmanager
def held_if_free(path: Path | None = None) -> Iterator[bool]:
    """Hold the run lock inside the block when nobody holds it, without waiting; yield whether it is held.

    False, too, for another account than root.
    """
    try:
        descriptor = os.open(path or paths.RUN / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def held(
    station: str, deadline: Deadline, say: Callable[[str], None], path: Path | None = None
) -> Iterator[RunLock]:
    """Hold the run lock. Raises LockedError, naming the owner, when it is not free by the deadline."""
    path = path or paths.RUN / "lock"
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if not flock(descriptor, deadline.at, lambda: say(f"waiting for {_named_in(descriptor)}")):
            other = _named_in(descriptor)
            if other.pid is None:
                raise LockedError(f"The run lock {path} is held by {other}. lslocks(8) shows it; end it.")
            raise LockedError(f"Another run is at work: {other}. Wait for it, or end it.")
        lock = RunLock(descriptor)
        lock.at(station)
        yield lock
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def flock(descriptor: int, until: float, waiting: Callable[[], None] = lambda: None) -> bool:
    """Take flock(2) before the monotonic clock reads `until` (seconds); return whether it was taken.

    waiting: called once, when another process holds it. It is tried twice at least, because `owner`
    takes it for a moment.
    """
    tries = 0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tries += 1
        else:
            return True
        if tries == 1:
            waiting()
        elif time.monotonic() >= until:
            return False
        time.sleep(0.1)
