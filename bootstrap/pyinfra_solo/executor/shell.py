"""Run a line of shell as a child process with a time-out, and keep its output.

pyinfra runs `/bin/sh -c "sh -c 'cd … && export … && …'"`. Any user may read an argv, so here the text is
in a file in memory, and the argv names the file.
"""

import errno
import os
import re
import shlex
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from grp import getgrgid
from pathlib import Path
from pwd import getpwall, getpwuid
from signal import strsignal
from tempfile import mkstemp
from typing import Any

from pyinfra.connectors.util import CommandOutput, OutputLine

from pyinfra_solo.system import processes

MAX_OUTPUT = 8 * 1024 * 1024
"""Bytes of stdout, and of stderr, that are kept of an operation's command."""
MAX_FACT = 64 * 1024 * 1024
"""Bytes of a fact's output. pyinfra makes an object of each line, which takes several times as much."""
_NAME = "pyinfra_solo_script"
"""The shell's variable that holds a script until it runs."""
_POSIX_SHELL = re.compile(r"(?:.*[/\s])?(?:|ba|da|a|k|mk|z)sh(?:\s.*)?", re.ASCII)


@contextmanager
def by_reference(
    script: str, shell: str = "sh", *, uid: int | None = None, login: bool = False
) -> Iterator[list[str]]:
    """Yield the words after `shell` that make it run `script`, as `-c script` would.

    They name a file in memory. uid: the account that runs the shell; None: this one, or root. The shell
    has closed the file before the script begins, so no descendant inherits it. login: the words pass
    through sudo -i, which expands `$` (sudo(8)), so the shell reads the script itself; so does a shell that
    is no POSIX shell. Raises ValueError for a NUL, which dash would leave out, OSError.
    """
    if "\0" in script:
        raise ValueError("embedded null byte")
    is_posix = _POSIX_SHELL.fullmatch(shell)
    text = f"{_NAME}={shlex.quote(script)}\n" if is_posix and not login else script
    with _file(text.encode(errors="surrogateescape"), uid) as path:
        if not is_posix:
            yield [path]
        elif login:
            yield ["-c", f". {path}"]
        else:
            # eval, so that the script sees $0 and $- of `-c`, and messages name no path. In one line with
            # `unset`, so that lines are counted from the script's first one.
            yield ["-c", f'. {path}; eval "unset {_NAME}; ${_NAME}"']


@contextmanager
def _file(data: bytes, uid: int | None) -> Iterator[str]:
    """Make a file in memory that one account and root can read, and yield its path. Raises OSError.

    This process's own account reads a sealed file in its /proc folder. No other account can enter that
    folder, so it gets a file with a name, which is gone when the command has ended. The file stays root's:
    its owner could keep it open and fill the memory.
    """
    if uid is None:
        with processes.sealed(data) as source:
            yield f"/proc/{os.getpid()}/fd/{source}"
        return
    _sweep()
    descriptor, path = mkstemp(dir=_MEMORY, prefix=f"{_PREFIX}{os.getpid()}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            _let_read(descriptor, uid)
        yield path
    finally:
        Path(path).unlink(missing_ok=True)


def _let_read(descriptor: int, uid: int) -> None:
    """Let one account read a file of mode 0600, by an access control list (acl(5)), and never write it.

    Where the file system has none, by the account's group, if it has no other member. Raises OSError.
    """
    entries = ((1, 6, _NO_ID), (2, 4, uid), (4, 0, _NO_ID), (16, 4, _NO_ID), (32, 0, _NO_ID))
    attribute = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(descriptor, "system.posix_acl_access", attribute)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        os.fchown(descriptor, -1, _group_of_one(uid))
        os.fchmod(descriptor, stat.S_IRUSR | stat.S_IRGRP)


_NO_ID = 2**32 - 1
"""ACL_UNDEFINED_ID of linux/posix_acl_xattr.h, whose numbers the entries have: tag, rights, account."""


def _group_of_one(uid: int) -> int:
    """Return the account's first group. Raises OSError when another account is a member, too."""
    account = getpwuid(uid)
    members = {one.pw_name for one in getpwall() if one.pw_gid == account.pw_gid}
    if members | set(getgrgid(account.pw_gid).gr_mem) != {account.pw_name}:
        raise OSError(
            errno.ENOTSUP,
            f"{_MEMORY} has no access control lists (acl(5)), and the group of {account.pw_name} has other members: no "
            f"file can be read by that account alone. Mount a tmpfs at {_MEMORY}.",
        )
    return account.pw_gid


_MEMORY = Path("/run")
"""A folder in memory that each account can enter and root alone can write (file-hierarchy(7))."""
_PREFIX = "pyinfra-solo-"


@cache
def _sweep() -> None:
    """Remove the files of killed runs."""
    for path in _MEMORY.glob(f"{_PREFIX}[0-9]*-*"):
        if not Path("/proc", path.name.split("-")[2]).exists():
            path.unlink(missing_ok=True)


class TooMuchOutputError(Exception):
    """A program wrote more than MAX_FACT bytes."""


def run(
    words: Sequence[str], *, timeout: float, stdin: Any = None, is_fact: bool = False
) -> tuple[int | None, CommandOutput]:
    """Run `words`; return the exit status and the output.

    Status: minus a signal's number for a program that the signal ended. None: it took longer than
    `timeout` seconds, as the last line says, and its process group was ended. is_fact: raise
    TooMuchOutputError rather than cut the output.
    """
    most = MAX_FACT if is_fact else MAX_OUTPUT
    try:
        done = processes.run(
            words, timeout=timeout, stdin=_stdin(stdin), folder=".", max_output=most, session=False
        )
    except processes.TimedOutError as error:
        return None, _output(error.finished, most, str(error))
    if is_fact and done.cut:
        raise TooMuchOutputError
    # As the outer one of pyinfra's two shells reports it.
    return done.status, _output(done, most, strsignal(-done.status) if done.status < 0 else None)


def _output(done: processes.Finished, most: int, last: str | None) -> CommandOutput:
    cut = f"(more than {most // 1024**2} MiB of output were cut)" if done.cut else None
    lines = [*_lines("stdout", done.stdout), *_lines("stderr", done.stderr)]
    return CommandOutput([*lines, *(OutputLine("stderr", text) for text in (cut, last) if text)])


def _lines(name: str, text: bytes) -> list[OutputLine]:
    lines = text.decode(errors="replace").split("\n")
    return [OutputLine(name, line) for line in (lines if lines[-1] else lines[:-1])]


def _stdin(given: Any) -> bytes:
    """Return the bytes that pyinfra makes of `_stdin`.

    Each text, and each line of a file, ends with a newline. Bytes, which pyinfra does not take, are sent
    as they are.
    """
    if isinstance(given, bytes) or not given:
        return given or b""
    lines = given.readlines() if hasattr(given, "readlines") else given
    ended = (
        _bytes(line).removesuffix(b"\n") + b"\n" for line in ([lines] if isinstance(lines, str) else lines)
    )
    return b"".join(ended)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
