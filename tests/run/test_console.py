"""The console of a run: plain lines in a journal, a moving line on a terminal, and never a crash."""

from __future__ import annotations

import errno
import io
import os
import pty
import sys

import pytest

from pyinfra_solo.report.records import Operation
from pyinfra_solo.run.console import PlainConsole, TerminalConsole, console


def show_all(console: PlainConsole) -> None:
    console.station("converge", None, "running")
    console.say("converge", "to change: \x1b[2J")
    console.starting("nginx runs", 1, 3)
    console.operation(Operation(name="nginx runs", changed=False, seconds=0.5), 1, 3)
    console.operation(Operation(name="nginx serves", changed=True, seconds=1.5), 2, 3)
    console.operation(
        Operation(
            name="the app runs", changed=False, failed=True, seconds=2.0, output=["no\r", "such \udcff"]
        ),
        3,
        3,
    )
    console.station("converge", 4.04, "failed")


def shown(kind: type[PlainConsole]) -> str:
    out = io.StringIO()
    show_all(kind(out))
    return out.getvalue()


def test_plain_lines_name_station_operation_and_outcome() -> None:
    assert shown(PlainConsole).splitlines() == [
        "converge: to change: \\x1b[2J",
        "converge: 1/3 nginx runs: ok in 0.50 s",
        "converge: 2/3 nginx serves: changed in 1.50 s",
        "converge: 3/3 the app runs: FAILED in 2.00 s",
        "converge:   no\\r",
        "converge:   such \\udcff",
        "converge: failed in 4.0 s",
    ]


def test_terminal_keeps_changes_and_overwrites_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(TerminalConsole)
    stays = [line.rpartition("\x1b[K")[2] for line in text.split("\n")]

    assert stays == [
        "    converge: to change: \\x1b[2J",
        "    changed nginx serves 1.5 s",
        "    failed  the app runs",
        "            no\\r",
        "            such \\udcff",
        "✗ converge       4.0 s",
        "",
    ]
    assert "\r\x1b[K· converge 1/3 nginx runs" in text


def test_colours_are_shown_on_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m✗\x1b[0m" in shown(TerminalConsole)
    assert "\x1b[3" not in shown(PlainConsole)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in shown(TerminalConsole)


@pytest.mark.parametrize(
    ("term", "kind"), [("xterm", TerminalConsole), ("dumb", PlainConsole), (None, PlainConsole)]
)
def test_kind_of_console_goes_by_term(
    term: str | None, kind: type[PlainConsole], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term:
        monkeypatch.setenv("TERM", term)
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as out:
        assert type(console(out)) is kind
    os.close(leader)


def test_console_of_a_file_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")

    assert type(console(io.StringIO())) is PlainConsole


class Full(io.StringIO):
    """Behaves as /dev/full. A real file would keep what it could not write, and fail when it is closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, f"No space left on device for {len(text)} characters")


@pytest.mark.parametrize("kind", [PlainConsole, TerminalConsole])
def test_output_that_cannot_be_written_is_no_failure(kind: type[PlainConsole]) -> None:
    """A log on a full disk, or `| head`: the machine converges all the same."""
    show_all(kind(Full()))


def test_closed_stderr_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)

    show_all(console())
