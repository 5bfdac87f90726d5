"""A shell script as a child: in a group of its own, for a time, and whatever it prints is kept."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from pyinfra.connectors.util import CommandOutput, OutputLine

from pyinfra_solo.system import processes

_MOST_OUTPUT = 8 * 1024 * 1024
CUT = f"(more than {_MOST_OUTPUT // 1024**2} MiB of output were cut)"
"""The line of stderr that says so."""


class TimedOutError(TimeoutError):
    """A script took too long and was ended. output: what it had said by then, and this."""

    def __init__(self, seconds: float, output: CommandOutput) -> None:
        super().__init__(f"took longer than {seconds:g} s and was ended")
        self.output = CommandOutput([*output.combined_lines, OutputLine("stderr", str(self))])


def run_script(
    script: str,
    *,
    shell: str = "/bin/sh",
    seconds: float,
    stdin: Any = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> tuple[int, CommandOutput]:
    """Exit status and output. Raises EndedError when it takes longer than `seconds`; then nothing of
    its process group is left. Raises ValueError for a NUL, which dash would leave out.

    The script is read from a file that has no name, so it is in no argv; output goes to files, so a
    daemon left behind holds up nobody.
    """
    if "\0" in script:
        raise ValueError("embedded null byte")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        source = os.memfd_create("script", 0)
        try:
            os.write(source, script.encode(errors="surrogateescape"))
            os.set_inheritable(source, True)
            given.write(_stdin(stdin))
            given.seek(0)
            process = subprocess.Popen(
                [shell, f"/dev/fd/{source}"],
                stdin=given, stdout=out, stderr=err, pass_fds=(source,), process_group=0,
                env={**os.environ, **(environment or {})}, cwd=folder,
            )  # fmt: skip
        finally:
            os.close(source)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            processes.end_group(process.pid)
            process.wait()
            raise TimedOutError(seconds, _said(out, err)) from None
        return code, _said(out, err)


def _said(out: Any, err: Any) -> CommandOutput:
    return CommandOutput([*_lines("stdout", out), *_lines("stderr", err)])


def _lines(name: str, file: Any) -> list[OutputLine]:
    file.seek(0)
    lines = file.read(_MOST_OUTPUT).decode(errors="replace").split("\n")
    said = [OutputLine(name, line) for line in (lines if lines[-1] else lines[:-1])]
    return [*said, OutputLine("stderr", CUT)] if file.read(1) else said


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
