"""Run programs with a time limit, and wait for what they do."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class LabError(Exception):
    """A server, a machine or a program of the tests failed: says what was tried, and the result."""


@dataclass(frozen=True)
class Result:
    """Output and exit status of a command."""

    stdout: str
    stderr: str
    code: int

    @property
    def ok(self) -> bool:
        """True when the exit status is 0."""
        return self.code == 0

    def expect(self, code: int) -> "Result":
        """Return itself when the exit status is `code`."""
        assert self.code == code, f"exit status {self.code}\n{self.stdout}\n{self.stderr}"
        return self


def run(
    argv: Sequence[str | Path], *, timeout: float = 60, check: bool = True, stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
) -> Result:  # fmt: skip
    """Run a command; after `timeout` seconds it and all its children in the session are killed.

    Raises LabError on a time-out, and on an exit status other than 0 when `check` is set.
    """
    words = [str(word) for word in argv]
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True)
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        text = (out + err).decode(errors="replace")
        raise LabError(f"{' '.join(words)}: not done after {timeout} s\n{text}") from None
    result = Result(out.decode(errors="replace"), err.decode(errors="replace"), process.returncode)
    if check and result.code != 0:
        raise LabError(f"{' '.join(words)}: exit status {result.code}\n{result.stdout}{result.stderr}")
    return result


def wait_for(what: str, ready: Callable[[], bool], timeout: float, every: float = 0.05) -> None:
    """Poll `ready` until it is true; LabError naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"not within {timeout} s: {what}")
        time.sleep(every)


def is_alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie (proc(5), /proc/PID/stat)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
