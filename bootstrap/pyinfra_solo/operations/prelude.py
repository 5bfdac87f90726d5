"""Helpers that every operation's program shares, sent in front of its text.

A program (`accounts/program.py` and others) imports these names here. Another machine gets one text: this
file, then the program without that import (`script.Program`). So both are Python 3.9, and use the standard
library alone.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

_ACCOUNT_SECONDS = 60
"""Time-out in seconds of a child that works in a home.

An account may mount a file system of its own there (FUSE).
"""
QUERY_SECONDS = 60.0
"""Time-out of a child of a check that is called in the process. A command has its caller's time-out."""

_MAX_OUTPUT = 8 * 1024 * 1024
"""Bytes of a child's output that are kept, and read."""
_FS_IOC_SETFLAGS, _FS_APPEND_FL = 0x40086602, 0x20  # linux/fs.h

before_child: Callable[[], None] | None = None
after_child: Callable[[str, float], None] | None = None
"""Called around each child in the process, the second with the program's name and the seconds."""

_IS_COMMAND = __name__ == "__main__"


class ProgramError(Exception):
    """A failure; its text is the program's last line of stderr."""


class Finished(NamedTuple):
    """A child that has ended: its exit status, and its output where that was captured."""

    status: int
    text: str = ""


def encode(arguments: Mapping[str, Any]) -> list[str]:
    """Write arguments as words: NAME=TEXT for text, NAME:=JSON for everything else. They show in `ps`."""
    return [
        f"{name}={value}" if isinstance(value, str) else f"{name}:={json.dumps(value)}"
        for name, value in arguments.items()
    ]


def decode(words: Sequence[str]) -> dict[str, Any]:
    """Read the words of `encode`."""
    arguments: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name.endswith(":"):
            arguments[name[:-1]] = json.loads(value)
        else:
            arguments[name] = value
    return arguments


def main(**verbs: Callable[..., Any]) -> None:
    """Call a verb as `PROGRAM VERB WORD...` asks, and print what it returns as one line of JSON."""
    name, verb, *words = sys.argv[1:]
    try:
        answer = verbs[verb](**decode(words))
    except ProgramError as error:
        sys.exit(str(error))
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{name}: {error}")
    if answer is not None:
        print(json.dumps(answer))  # noqa: T201 - the answer of a command


def report(line: str) -> None:
    """Print a line before the output of the next child."""
    print(line, flush=True)  # noqa: T201 - a command's output


def run(*words: str, **variables: str) -> Finished:
    """Run a child whose output is this program's own."""
    return _run(words, None, None, variables)


def require(*words: str, **variables: str) -> None:
    """Run a child as `run` does. Ends this program with the child's exit status when that is not 0."""
    if status := run(*words, **variables).status:
        sys.exit(status)


def query(*words: str) -> Finished:
    """Run a child and capture its stdout; what it writes to stderr is dropped."""
    return _captured(words, subprocess.DEVNULL, {})


def capture(*words: str, **variables: str) -> Finished:
    """Run a child and capture its stdout and stderr together."""
    return _captured(words, subprocess.STDOUT, variables)


def capture_errors(*words: str, **variables: str) -> Finished:
    """Run a child whose stdout is this program's own, and capture its stderr."""
    return _captured(words, None, variables)


def _captured(words: Sequence[str], stderr: int | None, variables: Mapping[str, str]) -> Finished:
    """Capture stdout, or stderr when `stderr` is None, in a file without a name: a daemon that the child leaves behind may keep it open.

    The child gets a descriptor that can only append: what it starts as another account can neither read
    nor change what is written already (see system/processes.py).
    """
    with tempfile.TemporaryFile(buffering=0) as kept, _limited(kept.fileno()) as first:
        _only_append(kept.fileno(), True)
        writer = os.open(f"/proc/self/fd/{kept.fileno()}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            if stderr is None:
                finished = _run(words, None, writer, variables)
            else:
                finished = _run(words, writer, stderr, variables)
        finally:
            os.close(writer)
        text = (first or [os.pread(kept.fileno(), _MAX_OUTPUT, 0)])[0].decode(errors="replace")
        return Finished(finished.status, finished.text or text)


@contextmanager
def _limited(file: int) -> Iterator[list[bytes]]:
    """Give back the disk space beyond _MAX_OUTPUT, as often as it is taken.

    Yields a list that then holds the first output: while the flag is off, a child may overwrite the file.
    """
    first, has_ended = list[bytes](), threading.Event()

    def watch() -> None:
        while not has_ended.wait(0.02):
            if os.fstat(file).st_size > _MAX_OUTPUT:
                first[:] = first or [os.pread(file, _MAX_OUTPUT, 0)]
                _only_append(file, False)
                os.ftruncate(file, _MAX_OUTPUT)
                _only_append(file, True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield first
    finally:
        has_ended.set()
        thread.join()


def _only_append(file: int, on: bool) -> None:
    with suppress(OSError):  # needs CAP_LINUX_IMMUTABLE, and a file system that has it
        fcntl.ioctl(file, _FS_IOC_SETFLAGS, struct.pack("l", _FS_APPEND_FL if on else 0))


def _run(words: Sequence[str], stdout: Any, stderr: Any, variables: Mapping[str, str]) -> Finished:
    """Run a child with nothing to read.

    Its status is 127 or 126, as in a shell, when it cannot be executed.
    A command's children stay in its process group, which its caller ends. In the process each child
    has a group of its own, and is ended after QUERY_SECONDS. Raises TimeoutExpired.
    """
    options: dict[str, Any] = {} if _IS_COMMAND else {"process_group": 0}
    environment = {**os.environ, "LC_ALL": "C", **variables}
    if before_child:
        before_child()
    began = time.monotonic()
    try:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment, **options
        )
        return Finished(_status(child))
    except (FileNotFoundError, PermissionError) as error:
        if stdout is None:
            sys.stderr.write(f"{words[0]}: {error.strerror}\n")
        return Finished(127 if error.errno == errno.ENOENT else 126, f"{words[0]}: {error.strerror}\n")
    finally:
        if after_child:
            after_child(words[0].rpartition("/")[2], time.monotonic() - began)


def _status(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(None if _IS_COMMAND else QUERY_SECONDS)
    except BaseException:
        if not _IS_COMMAND:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        raise


def write(path: Path, text: str, mode: int = 0o644, suffix: str = ".new") -> None:
    """Replace `path` by a file with `text`, by rename after its contents are on disk. Raises OSError.

    suffix: of the new file's name until then. What has that name is removed, never opened.
    """
    beside = path.with_name(f".{path.name}{suffix}")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Write a file's contents, or a folder's names, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without fsync(2) for folders
            raise
    finally:
        os.close(descriptor)


def as_account(account: pwd.struct_passwd, call: Callable[[], Any]) -> Any:
    """Call in a child with the account's rights to files: a link in its home must not lead root anywhere.

    Raises ProgramError with the child's failure, and when it takes longer than _ACCOUNT_SECONDS.
    """
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _child(account, groups, call, writable)
    os.close(writable)
    try:
        answered = _until_end(readable, time.monotonic() + _ACCOUNT_SECONDS)
    finally:
        os.close(readable)
        _end(child)
    if not answered:
        raise ProgramError(f"{account.pw_name}: its home did not answer for {_ACCOUNT_SECONDS} s")
    answer = json.loads(answered)
    if "error" in answer:
        raise ProgramError(f"{account.pw_name}: {answer['error']}")
    return answer["value"]


def _until_end(pipe: int, until: float) -> bytes:
    """Read a pipe to its end; return b"" when that is not before the monotonic clock reads `until`."""
    poll, read = select.poll(), b""
    poll.register(pipe)
    while poll.poll(max(0.0, until - time.monotonic()) * 1000):
        part = os.read(pipe, 1 << 16)
        if not part:
            return read
        read += part
    return b""


def _end(child: int) -> None:
    """Kill and reap a child. One that waits for a dead file system stays behind (signal(7), FUSE)."""
    os.kill(child, signal.SIGKILL)
    until = time.monotonic() + 5
    while not os.waitpid(child, os.WNOHANG)[0] and time.monotonic() < until:
        time.sleep(0.001)


def _child(account: pwd.struct_passwd, groups: list[int], call: Callable[[], Any], writable: int) -> None:
    """Take on the account's rights to files, call, write the answer and exit.

    The real and the saved user stay root: then the account may send no signal (kill(2)).
    """
    try:
        os.setgroups(groups)
        os.setresgid(0, account.pw_gid, 0)
        os.setresuid(0, account.pw_uid, 0)
        answer = {"value": call()}
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        answer = {"error": str(error) or type(error).__name__}
    try:
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)
