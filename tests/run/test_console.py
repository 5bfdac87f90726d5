"""How a run sounds: plain lines in a journal, a moving line on a terminal, and never a crash."""

from __future__ import annotations

import errno
import io
import os
import pty
import sys

import pytest

from pyinfra_solo.report.records import Operation
from pyinfra_solo.run.console import PlainConsole, TerminalConsole, console
from pyinfra_solo.run.run import Console


def all_of_it(speaks: Console) -> None:
    speaks.station("converge", None, "running")
    speaks.say("converge", "to change: \x1b[2J")
    speaks.starting("nginx runs", 1, 3)
    speaks.operation(Operation(name="nginx runs", changed=False, seconds=0.5), 1, 3)
    speaks.operation(Operation(name="nginx serves", changed=True, seconds=1.5), 2, 3)
    speaks.operation(
        Operation(
            name="the app runs", changed=False, failed=True, seconds=2.0, output=["no\r", "such \udcff"]
        ),
        3,
        3,
    )
    speaks.station("converge", 4.04, "failed")


def heard(kind: type[PlainConsole]) -> str:
    out = io.StringIO()
    all_of_it(kind(out))
    return out.getvalue()


def test_in_a_journal_each_line_names_the_station_the_thing_and_how_it_went() -> None:
    assert heard(PlainConsole).splitlines() == [
        "converge: to change: \\x1b[2J",
        "converge: 1/3 nginx runs: ok in 0.50 s",
        "converge: 2/3 nginx serves: changed in 1.50 s",
        "converge: 3/3 the app runs: FAILED in 2.00 s",
        "converge:   no\\r",
        "converge:   such \\udcff",
        "converge: failed in 4.0 s",
    ]


def test_on_a_terminal_what_changed_stays_and_what_is_going_on_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = heard(TerminalConsole)
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


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m✗\x1b[0m" in heard(TerminalConsole)
    assert "\x1b[3" not in heard(PlainConsole)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in heard(TerminalConsole)


@pytest.mark.parametrize(
    ("term", "kind"), [("xterm", TerminalConsole), ("dumb", PlainConsole), (None, PlainConsole)]
)
def test_a_terminal_is_one_when_it_says_so(
    term: str | None, kind: type[PlainConsole], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term:
        monkeypatch.setenv("TERM", term)
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as out:
        assert type(console(out)) is kind
    os.close(leader)


def test_what_is_no_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")

    assert type(console(io.StringIO())) is PlainConsole


class Full(io.StringIO):
    """As /dev/full, whose own file keeps what it could not write, and fails again when it is closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, f"No space left on device for {len(text)} characters")


@pytest.mark.parametrize("kind", [PlainConsole, TerminalConsole])
def test_nobody_hearing_it_is_no_failure(kind: type[PlainConsole]) -> None:
    """A log on a full disk, or `| head`: the machine converges all the same."""
    all_of_it(kind(Full()))


def test_a_closed_stderr_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)

    all_of_it(console())
