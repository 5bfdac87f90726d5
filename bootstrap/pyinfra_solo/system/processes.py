"""Run a program within a time, and end everything that it started.

A child leads a session of its own, or a process group in the session of the caller. A time-out ends
all of the session or group. A daemon that called setsid(2) has left on purpose, and stays.
"""

import fcntl
import os
import select
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_GRACE = 5.0
_KILL = 5.0
"""Seconds for SIGKILL: a process in uninterruptible sleep (a dead network disk) cannot be ended."""
_CHECK = 0.02
"""Seconds between two checks of how much a child has written."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FS_IOC_SETFLAGS, _FS_APPEND_FL = 0x40086602, 0x20  # linux/fs.h


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A child that has ended.

    status: its exit status, or minus the signal that ended it. stderr: empty when merged into stdout.
    cut: it wrote more than is kept.
    """

    status: int
    stdout: bytes
    stderr: bytes
    cut: bool


class TimedOutError(TimeoutError):
    """A child took too long and was ended. finished: what it had written until then."""

    def __init__(self, seconds: float, finished: Finished) -> None:
        super().__init__(f"took longer than {seconds:g} s and was ended")
        self.finished = finished


def run(
    words: Sequence[str],
    *,
    timeout: float,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
    folder: str | Path = "/",
    max_output: int = 8 * 1024 * 1024,
    merge: bool = False,
    pass_fds: Sequence[int] = (),
    session: bool = True,
    umask: int = -1,
    grace: float = _GRACE,
    before_exec: Callable[[], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Finished:
    """Run a program until it ends; what it leaves running is neither waited for nor ended.

    timeout, grace: seconds; grace lies between SIGTERM and SIGKILL. environment: all of it; None is
    this process's. max_output: bytes of stdout and of stderr. merge: stderr into stdout. session: a
    session of its own, else a process group. before_exec: called in the child. meanwhile: called
    every few hundredths of a second; what it raises ends the child.
    Raises TimedOutError, ValueError for a NUL in a word, OSError when the program cannot be started.

    A program may start others of another account (sudo, su, setpriv): what they inherit lets them
    read its input, as it may itself, but neither change it nor read or change output that is written.
    """
    with _Output(max_output) as out, _Output(max_output) as err, sealed(stdin, 0o444) as given:
        process = subprocess.Popen(
            words, stdin=given, stdout=out.writer, stderr=subprocess.STDOUT if merge else err.writer,
            env=environment, cwd=folder, pass_fds=pass_fds, umask=umask,
            start_new_session=session, process_group=None if session else 0,
            preexec_fn=before_exec,  # noqa: PLW1509 - for what setpriv(1) and unshare(1) cannot do
        )  # fmt: skip

        def limit() -> None:
            out.limit()
            err.limit()

        def each() -> None:
            limit()
            if meanwhile:
                meanwhile()

        ended = False
        try:
            ended = _wait(process, time.monotonic() + timeout, each)
        finally:
            if not ended:
                (end_session if session else end_group)(process.pid, grace, limit)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
        status = -signal.SIGKILL if process.returncode is None else process.returncode
        finished = Finished(status=status, stdout=out.content(), stderr=err.content(), cut=out.cut or err.cut)
    if not ended:
        raise TimedOutError(timeout, finished)
    return finished


class _Output:
    """A file without a name, of which a child gets a descriptor that can only append.

    Not a pipe: a daemon that keeps it open holds up nobody, and neither its later writes nor the end
    of this process hurt it. Mode 0600: another account cannot open it through /proc. The inode's flag
    keeps who inherits the descriptor from clearing O_APPEND, truncating and punching holes
    (ioctl_iflags(2), fcntl(2)); it needs CAP_LINUX_IMMUTABLE and a file system that has it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._first: bytes | None = None
        self.cut = False

    def __enter__(self) -> "_Output":
        self._file = tempfile.TemporaryFile(buffering=0)
        self._only_append(True)
        self.writer = _reopened(self._file.fileno(), os.O_WRONLY | os.O_APPEND)
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.writer)
        self._file.close()

    def limit(self) -> None:
        """Give back the disk space beyond the limit, after the output is kept: a child can then overwrite it."""
        if os.fstat(self._file.fileno()).st_size > self._most:
            self._first = self.content(limit=False)
            self.cut = True
            self._only_append(False)
            self._file.truncate(self._most)
            self._only_append(True)

    def content(self, *, limit: bool = True) -> bytes:
        if limit:
            self.limit()
        return self._first or os.pread(self._file.fileno(), self._most, 0)

    def _only_append(self, on: bool) -> None:
        with suppress(OSError):
            fcntl.ioctl(self._file.fileno(), _FS_IOC_SETFLAGS, struct.pack("l", _FS_APPEND_FL if on else 0))


@contextmanager
def sealed(data: bytes, mode: int = 0o400) -> Iterator[int]:
    """Open a read-only descriptor of a file in memory that nobody can write to (memfd_create(2)).

    mode: who may open it anew through /proc.
    """
    written = os.memfd_create("pyinfra-solo", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(written, view) :]
        os.fchmod(written, mode)  # it is made 0777
        fcntl.fcntl(written, fcntl.F_ADD_SEALS, _SEALS)
        descriptor = _reopened(written, os.O_RDONLY)
    finally:
        os.close(written)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reopened(descriptor: int, flags: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)


def _wait(process: subprocess.Popen[bytes], until: float, meanwhile: Callable[[], None]) -> bool:
    """Wait for the child's end until the monotonic clock reads `until`; return whether it has ended."""
    with _end_of(process) as has_ended:
        while not has_ended(max(0.0, min(_CHECK, until - time.monotonic()))):
            if time.monotonic() >= until:
                return False
            meanwhile()
    return True


@contextmanager
def _end_of(process: subprocess.Popen[bytes]) -> Iterator[Callable[[float], bool]]:
    """Make a function that waits some seconds for the child's end.

    Popen.wait() sleeps up to 50 ms beyond it. pidfd_open(2) wakes at once, but needs Linux 5.3, and
    a container's seccomp filter may refuse it.
    """

    def wait(seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
        return process.returncode is not None

    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        yield wait
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield lambda seconds: bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def members(session: int) -> list[int]:
    """List the processes of a session but its zombies (proc(5), /proc/PID/stat, fields 3 and 6)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def end_session(session: int, grace: float = _GRACE, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Send SIGTERM to a session, and SIGKILL to what is left of it after `grace` seconds.

    meanwhile: called every few hundredths of a second.
    """
    left = members(session)
    _signal(left, signal.SIGTERM)
    until = time.monotonic() + grace
    while left and time.monotonic() < until:
        meanwhile()
        time.sleep(_CHECK)
        left = members(session)
    until = time.monotonic() + _KILL
    while left and time.monotonic() < until:
        _signal(left, signal.SIGKILL)
        meanwhile()
        time.sleep(_CHECK)
        left = members(session)


def end_group(group: int, grace: float = _GRACE, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Do the same to a process group whose leader is this process's child, not yet waited for."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until and not _has_ended(group):
            meanwhile()
            time.sleep(_CHECK)
    # What ignored SIGTERM and outlived its leader is still in the group.
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _has_ended(child: int) -> bool:
    """Ask without taking the status. gevent, under pyinfra's own command, waits for each child itself."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
