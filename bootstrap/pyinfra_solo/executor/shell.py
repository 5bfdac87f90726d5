"""Run a line of shell as a child process with a time-out, and keep its output.

pyinfra runs `/bin/sh -c "sh -c 'cd … && export … && …'"`. Any user may read an argv, so here the text is
in a file in memory, and the argv names the file.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from signal import strsignal
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
def by_reference(script: str, shell: str = "sh") -> Iterator[list[str]]:
    """Yield the words after `shell` that make it run `script`, as `-c script` would.

    They name a file of this process in /proc, which its account and root can read, and nobody can
    write. The shell has closed the file before the script begins, so no descendant inherits it. A shell
    that is no POSIX shell is given the file itself. Raises ValueError for a NUL, which dash would leave out.
    """
    if "\0" in script:
        raise ValueError("embedded null byte")
    is_posix = _POSIX_SHELL.fullmatch(shell)
    text = f"{_NAME}={shlex.quote(script)}\n" if is_posix else script
    with processes.sealed(text.encode(errors="surrogateescape")) as source:
        path = f"/proc/{os.getpid()}/fd/{source}"
        # eval, so that the script sees $0 and $- of `-c`, and messages name no path. In one line with
        # `unset`, so that lines are counted from the script's first one.
        yield ["-c", f'. {path}; eval "unset {_NAME}; ${_NAME}"'] if is_posix else [path]


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
    """Return the bytes that pyinfra makes of `_stdin`: each text, and each line of a file, ends with a newline.

    Bytes, which pyinfra does not take, are sent as they are.
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
