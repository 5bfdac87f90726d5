"""Run a shell script as a child process with a time-out, and keep its output.

A script may start programs of other accounts (sudo, su, setpriv), so nothing that they inherit gives
them the script, or lets them change it or output that is written already.
"""

import fcntl
import os
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import IO, Any

from pyinfra.connectors.util import CommandOutput, OutputLine

from pyinfra_solo.system import processes

_MAX_OUTPUT = 8 * 1024 * 1024
"""Bytes of stdout, and of stderr, that are kept."""
CUT = f"(more than {_MAX_OUTPUT // 1024**2} MiB of output were cut)"
"""The line of stderr that reports it."""

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_FS_IOC_SETFLAGS, _FS_APPEND_FL = 0x40086602, 0x20  # linux/fs.h


class TimedOutError(TimeoutError):
    """A script took too long and was ended. output: what it printed until then, and this error."""

    def __init__(self, seconds: float, output: CommandOutput) -> None:
        super().__init__(f"took longer than {seconds:g} s and was ended")
        self.output = CommandOutput([*output.combined_lines, OutputLine("stderr", str(self))])


def run_script(
    script: str,
    *,
    shell: str = "/bin/sh",
    timeout: float,
    stdin: Any = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> tuple[int, CommandOutput]:
    """Run `script` by `shell` and return its exit status and output.

    Raises TimedOutError after `timeout` seconds; then its process group is ended. Raises ValueError for
    a NUL, which dash would leave out.

    The script is in no argv, and the shell opens it by this process's /proc folder, so that no
    program that it starts inherits it. Output goes to files: a daemon left behind delays nobody.
    """
    if "\0" in script:
        raise ValueError("embedded null byte")
    with ExitStack() as stack:
        out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        source = _sealed(script.encode(errors="surrogateescape"), stack)
        process = subprocess.Popen(
            [shell, f"/proc/{os.getpid()}/fd/{source}"],
            stdin=_reopen(_sealed(_stdin(stdin), stack), os.O_RDONLY, stack),
            stdout=_appender(out, stack), stderr=_appender(err, stack), process_group=0,
            env={**os.environ, **(environment or {})}, cwd=folder,
        )  # fmt: skip
        try:
            code = process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            processes.end_group(process.pid)
            process.wait()
            raise TimedOutError(timeout, _output(out, err)) from None
        return code, _output(out, err)


def _sealed(data: bytes, stack: ExitStack) -> int:
    """Return a file in memory that nobody can write to (memfd_create(2))."""
    descriptor = os.memfd_create("pyinfra-solo", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _appender(file: IO[bytes], stack: ExitStack) -> int:
    """Open the nameless file anew, to append only.

    The inode's flag keeps who inherits the descriptor from clearing O_APPEND, truncating and punching
    holes (ioctl_iflags(2), fcntl(2)). It needs CAP_LINUX_IMMUTABLE and a file system that has it.
    """
    with suppress(OSError):
        fcntl.ioctl(file.fileno(), _FS_IOC_SETFLAGS, struct.pack("l", _FS_APPEND_FL))
    return _reopen(file.fileno(), os.O_WRONLY | os.O_APPEND, stack)


def _reopen(descriptor: int, flags: int, stack: ExitStack) -> int:
    """Open the file of a descriptor anew, with a position and access of its own."""
    opened = os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)
    stack.callback(os.close, opened)
    return opened


def _output(out: IO[bytes], err: IO[bytes]) -> CommandOutput:
    return CommandOutput([*_lines("stdout", out), *_lines("stderr", err)])


def _lines(name: str, file: IO[bytes]) -> list[OutputLine]:
    file.seek(0)
    lines = file.read(_MAX_OUTPUT).decode(errors="replace").split("\n")
    found = [OutputLine(name, line) for line in (lines if lines[-1] else lines[:-1])]
    return [*found, OutputLine("stderr", CUT)] if file.read(1) else found


def _stdin(given: Any) -> bytes:
    if given is None:
        return b""
    if isinstance(given, bytes):
        return given
    if isinstance(given, str):
        return given.encode()
    if hasattr(given, "read"):
        return _stdin(given.read())
    return b"".join(_stdin(line).rstrip(b"\n") + b"\n" for line in given)
