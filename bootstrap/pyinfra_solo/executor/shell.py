"""Run a shell script as a child process with a time-out, and keep its output."""

import os
from collections.abc import Mapping
from typing import Any

from pyinfra.connectors.util import CommandOutput, OutputLine

from pyinfra_solo.system import processes

_MAX_OUTPUT = 8 * 1024 * 1024
"""Bytes of stdout, and of stderr, that are kept."""
CUT = f"(more than {_MAX_OUTPUT // 1024**2} MiB of output were cut)"
"""The line of stderr that reports it."""


def run_script(
    script: str,
    *,
    shell: str = "/bin/sh",
    timeout: float,
    stdin: Any = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> tuple[int | None, CommandOutput]:
    """Run `script` by `shell` and return its exit status and output.

    None: it took longer than `timeout` seconds, as the last line says, and its process group was ended.
    Raises ValueError for a NUL, which dash would leave out.

    The script is in no argv, and the shell opens it by this process's /proc folder, so that no
    program that it starts inherits it.
    """
    if "\0" in script:
        raise ValueError("embedded null byte")
    with processes.sealed(script.encode(errors="surrogateescape")) as source:
        try:
            done = processes.run(
                [shell, f"/proc/{os.getpid()}/fd/{source}"],
                timeout=timeout,
                stdin=_stdin(stdin),
                environment={**os.environ, **(environment or {})},
                folder=folder or ".",
                max_output=_MAX_OUTPUT,
                session=False,
            )
        except processes.TimedOutError as error:
            lines = _output(error.finished).combined_lines
            return None, CommandOutput([*lines, OutputLine("stderr", str(error))])
    return done.status, _output(done)


def _output(done: processes.Finished) -> CommandOutput:
    cut = [OutputLine("stderr", CUT)] if done.cut else []
    return CommandOutput([*_lines("stdout", done.stdout), *_lines("stderr", done.stderr), *cut])


def _lines(name: str, text: bytes) -> list[OutputLine]:
    lines = text.decode(errors="replace").split("\n")
    return [OutputLine(name, line) for line in (lines if lines[-1] else lines[:-1])]


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
