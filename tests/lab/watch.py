"""Show a machine's progress while it happens: its balancer's checks and its own report."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.lab.health import Check, Health
from tests.lab.machine import BootedMachine
from tests.support.programs import LabError

STATE = Path("var/lib/pyinfra-solo")
TICK = 3.0
"""Seconds between two signs of life where no line can move."""

GREEN, RED, YELLOW, FAINT, BOLD = "32", "31", "33", "2", "1"


@dataclass
class Screen:
    """Output: coloured, with a moving last line on a terminal; plain lines elsewhere."""

    out: TextIO
    _line: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.moves = self.out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.colours = self.moves and not os.environ.get("NO_COLOR")  # no-color.org: not when empty

    def paint(self, code: str, text: str) -> str:
        """`text` in an SGR colour, where colours are wanted."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colours and text else text

    def say(self, text: str = "") -> None:
        """Show a line that stays."""
        with self._line:
            self.out.write(f"{self._clear()}{text}\n")
            self.out.flush()

    def move(self, text: str) -> None:
        """Show a last line until the next output; nothing where lines do not move."""
        if self.moves:
            with self._line:
                width = shutil.get_terminal_size().columns - 1
                self.out.write(f"{self._clear()}{text[:width]}")
                self.out.flush()

    def _clear(self) -> str:
        return "\r\x1b[K" if self.moves else ""

    @contextlib.contextmanager
    def step(self, what: str, how_long: str = "") -> Iterator[None]:
        """Show how long the work inside the block takes, during it and at its end."""
        began, ended = time.monotonic(), threading.Event()

        def tick() -> None:
            every = 0.2 if self.moves else TICK
            if ended.wait(1):
                return
            while not ended.is_set():
                seconds = time.monotonic() - began
                line = f"  … {what}{how_long and f' ({how_long})'}: {seconds:.0f} s"
                self.move(line) if self.moves else self.say(line)
                ended.wait(every)

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()
        seconds = f"{time.monotonic() - began:6.1f} s"
        self.say(f"  {self.paint(GREEN, '✓')} {what:<46} {self.paint(FAINT, seconds)}")


@dataclass
class Watch:
    """Shows a run of a machine: each station as it ends, each change, each new answer to the balancer.

    zero: the moment (monotonic, seconds) that times are counted from.
    """

    machine: BootedMachine
    health: Health
    screen: Screen
    zero: float
    _checks: int = field(init=False)
    _answer: str = ""
    _since: float = 0.0
    _run: str = ""
    _known: str = field(init=False)
    _stations: int = 0
    _events: int = 0

    def __post_init__(self) -> None:
        self._checks = self.health.mark()
        self._known = str(self._read().get("run", ""))

    def until(self, done: Callable[[], bool], timeout: float) -> None:
        """Show what happens until `done`. Raises LabError after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not done():
            if time.monotonic() > end:
                journal = self.machine.journal("pyinfra-solo", boot=True)[-3000:]
                raise LabError(f"{self.machine.name}: not done after {timeout:.0f} s\n{journal}")
            self.update()
            time.sleep(0.05)
        self.update()

    @property
    def ended(self) -> bool:
        """True when a run that was not there before has ended."""
        found = self._read()
        return bool(found) and found["run"] != self._known and found["outcome"] != "running"

    def update(self) -> None:
        """Show what is new."""
        self._show_run()
        for check in self.health.timeline[self._checks :]:
            self._checks += 1
            self._show_answer(check)

    def _show_answer(self, check: Check) -> None:
        # A check without an answer is written down when it is given up; it was made before.
        made = check.at - (self.health.timeout if check.error.startswith("TimeoutError") else 0)
        words = answer(check)
        if words == self._answer or made < self._since:
            return
        self._answer, self._since = words, made
        colour = GREEN if check.status == 200 else RED
        at = check.at + self.machine.powered_on - self.zero
        self._line(at, f"the balancer sees: {self.screen.paint(colour, words)}")

    def _show_run(self) -> None:
        report = self._read()
        if not report or report["run"] == self._known:
            return
        if report["run"] != self._run:
            self._run, self._stations, self._events = report["run"], 0, 0
        stations = report["stations"]
        while self._stations < len(stations):
            station = stations[self._stations]
            if station["name"] == "converge":
                self._show_operations()
            if station["seconds"] is None:
                self.screen.move(f"{'':11}· {station['name']}")
                return
            self._station(station)
            self._stations += 1

    def _station(self, station: dict[str, Any]) -> None:
        good = station["outcome"] == "ok"
        mark = self.screen.paint(GREEN if good else RED, "✓" if good else "✗")
        detail = self.screen.paint(FAINT, "; ".join(station["detail"]))
        self._line(None, f"{mark} {station['name']:<11}{station['seconds']:5.1f} s  {detail}".rstrip())

    def _show_operations(self) -> None:
        file = self._state / "reports" / f"{self._run}.events"
        try:
            lines = file.read_text().splitlines(keepends=True)
        except OSError:
            return
        for line in lines[self._events :]:
            if not line.endswith("\n"):
                return
            self._events += 1
            event = json.loads(line)
            if event["event"] == "OperationEnded" and (event["changed"] or event.get("failed")):
                self._operation(event)

    def _operation(self, event: dict[str, Any]) -> None:
        paint = self.screen.paint
        word = paint(RED, "failed ") if event.get("failed") else paint(YELLOW, "changed")
        seconds = paint(FAINT, f"{event['seconds']:.1f} s")
        self._line(None, f"  {word}  {event['name']}  {seconds}")

    def _line(self, at: float | None, text: str) -> None:
        when = "" if at is None else f"{at:6.1f} s"
        self.screen.say(f"{when:>8}   {text}")

    @property
    def _state(self) -> Path:
        return self.machine.disk.root / STATE

    def _read(self) -> dict[str, Any]:
        """Return the last report; an empty one before the first run."""
        try:
            found: dict[str, Any] = json.loads((self._state / "last-run.json").read_text())
        except (OSError, ValueError):
            return {}
        return found


def answer(check: Check) -> str:
    """Describe an answer."""
    if check.status == 200:
        return "200, takes traffic"
    if check.status:
        return f"{check.status}, no traffic"
    if check.error.startswith("ConnectionRefused"):
        return "connection refused, no traffic"
    return "no answer, no traffic"
