"""Show a run on stderr: plain lines in a journal; on a terminal, progress in the last line."""

import io
import os
import shutil
import sys
import time
from contextlib import suppress
from typing import TextIO

from pyinfra_solo.report.records import Operation
from pyinfra_solo.system.text import printable


def console(out: TextIO | None = None) -> "PlainConsole":
    """Return the console for `out`, or stderr: TerminalConsole on a terminal that TERM does not call dumb."""
    out = out or sys.stderr or io.StringIO()  # a parent may have closed it
    terminal = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return TerminalConsole(out) if terminal else PlainConsole(out)


class PlainConsole:
    """Writes a line for each message, operation and ended station."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def station(self, name: str, seconds: float | None, outcome: str) -> None:
        if seconds is not None:
            self._line(f"{name}: {outcome} in {seconds:.1f} s")

    def say(self, station: str, text: str) -> None:
        self._line(f"{station}: {text}")

    def starting(self, name: str, number: int, of: int) -> None:
        """Write nothing: `operation` writes the line when it has ended."""

    def operation(self, operation: Operation, number: int, of: int) -> None:
        did = "FAILED" if operation.failed else "changed" if operation.changed else "ok"
        self._line(f"converge: {number}/{of} {operation.name}: {did} in {operation.seconds:.2f} s")
        for line in operation.output:
            self._line(f"converge:   {line}")

    def _line(self, text: str) -> None:
        self._write(printable(text) + "\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a full disk or a closed pipe must not fail the run
            self._out.write(text)
            self._out.flush()


class TerminalConsole(PlainConsole):
    """Keeps lines of stations and changes, and overwrites the last line with progress. Honours NO_COLOR."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._colour = "NO_COLOR" not in os.environ
        self._began = time.monotonic()

    def station(self, name: str, seconds: float | None, outcome: str) -> None:
        if seconds is None:
            self._moving(f"· {name}")
        else:
            mark = self._paint("32", "✓") if outcome == "ok" else self._paint("31", "✗")
            self._line(f"{mark} {name:<11} {self._paint('2', f'{seconds:6.1f} s')}")

    def say(self, station: str, text: str) -> None:
        self._line(f"    {self._paint('2', station + ':')} {printable(text)}")

    def starting(self, name: str, number: int, of: int) -> None:
        self._moving(f"· converge {number}/{of} {name}")

    def operation(self, operation: Operation, number: int, of: int) -> None:  # noqa: ARG002
        if operation.failed:
            self._line(f"    {self._paint('31', 'failed')}  {printable(operation.name)}")
        elif operation.changed:
            self._line(
                f"    {self._paint('33', 'changed')} {printable(operation.name)} {self._paint('2', f'{operation.seconds:.1f} s')}"
            )
        for line in operation.output:
            self._line(f"            {printable(line)}")

    def _line(self, text: str) -> None:
        self._write(f"\r\x1b[K{text}\n")

    def _moving(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[K{printable(text)[:width]}")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
