"""A report in words: what happened, what was slow and why, and bars that keep to the terminal's width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.checks import Finding
from pyinfra_solo.gate import boot_id
from pyinfra_solo.report import text as summary
from pyinfra_solo.report.records import NotIdempotent, Operation, Report, Station, Waited
from pyinfra_solo.report.timeline import Bar, Timeline
from pyinfra_solo.system.deadline import Deadline, Wait
from pyinfra_solo.system.lock import held

NGINX = Operation(
    name="nginx is installed", changed=True, seconds=3.1, cpu=1.2,
    waits=[Waited(what="sh packages", seconds=3.0), Waited(what="fact DebPackages", seconds=0.05)],
)  # fmt: skip


def some(**said: Any) -> Report:
    whole: dict[str, Any] = {
        "run": "20261121T000000Z-abcdef", "command": "boot", "started": "2026-11-21T00:00:00+00:00",
        "boot_id": "x", "engine": "0.1.0", "outcome": "ready", "exit_code": 0, "seconds": 12.34, **said,
    }  # fmt: skip
    return Report(**whole)


def test_a_run_that_went_well_is_told_from_its_outcome_to_its_checks() -> None:
    render = some(
        role="web", stage="production", instance_id="i-0a1", sha="a" * 40, source="disk",
        stations=[Station(name="identify", started=0, seconds=1.25, outcome="ok", waits=[Wait(what="a", why="b", seconds=1)])],
        operations=[NGINX, Operation(name="nginx runs", changed=False)],
        again=[NotIdempotent(name="the clock is right", would=["date -s now"])],
        findings=[Finding(check="unit nginx", passed=True, detail="", tries=1, seconds=0.5)],
    )  # fmt: skip

    assert summary.lines(render) == [
        "run       20261121T000000Z-abcdef, `boot`: ready in 12.3 s",
        "machine   web, production, i-0a1, commit aaaaaaaaaaaa from disk",
        "",
        "stations",
        "     1.2 s  identify, 1 waits",
        "",
        "2 operations: 1 changed, 0 failed",
        "    3.10 s  changed  nginx is installed",
        "",
        "1 would change something again",
        "  the clock is right",
        "                     date -s now",
        "",
        "1 checks",
        "     0.5 s  unit nginx: passed",
    ]


def test_a_failure_says_why_where_and_the_last_words() -> None:
    said = summary.lines(
        some(
            outcome="failed", exit_code=1, station="converge", error="nginx is installed failed.",
            stations=[Station(name="converge", started=0, seconds=2.0, outcome="failed")],
            operations=[Operation(name="nginx is installed", changed=False, failed=True, seconds=2.0, output=["E: \x1b[31mno"])],
            findings=[Finding(check="unit nginx", passed=False, detail="it is inactive", tries=3, seconds=60)],
        )
    )  # fmt: skip

    assert said[0].endswith("`boot`: failed in 12.3 s, exit status 1")
    assert said[2] == "why       converge: nginx is installed failed."
    assert "     2.0 s  converge: failed" in said
    assert "    2.00 s  FAILED   nginx is installed" in said
    assert "                     E: \\x1b[31mno" in said
    assert "    60.0 s  unit nginx: FAILED: it is inactive" in said


def test_a_run_that_says_it_runs_and_does_not_was_killed(machine_root: Path) -> None:
    render = some(outcome="running", station="fetch", boot_id=boot_id())

    assert machine_root.exists()
    assert summary.outcome(render) == "killed at fetch"
    with held("boot", Deadline.after(1), lambda _text: None):
        assert summary.outcome(render) == "running, at fetch"
        render.boot_id = "another"
        assert summary.outcome(render) == "killed at fetch"


def test_a_slow_operation_says_what_it_waited_for() -> None:
    assert summary.slow_lines(some(operations=[NGINX]), 120) == [
        "    3.10 s  nginx is installed  sh packages 3.00 s, fact DebPackages 0.05 s; CPU 1.20 s"
    ]
    assert summary.slow_lines(some(operations=[NGINX]), 80) == [
        "    3.10 s  nginx is installed",
        "                sh packages 3.00 s, fact DebPackages 0.05 s; CPU 1.20 s",
    ]


def test_the_ten_slowest_come_with_the_slowest_first() -> None:
    render = some(operations=[Operation(name=f"n{n}", changed=False, seconds=n % 7) for n in range(20)])
    said = summary.slow_lines(render, 80)

    assert [line.split()[0] for line in said] == [f"{n}.00" for n in (6, 6, 5, 5, 5, 4, 4, 4, 3, 3)]


def test_a_run_without_operations_says_so() -> None:
    assert summary.slow_lines(some(), 80) == ["This run came to no operation."]


def line(*bars: Bar) -> Timeline:
    return Timeline(zero="PID 1", notes=["No kernel is shown."], bars=bars)


WIDE = [
    Bar(name="userspace", kind="phase", began=0, seconds=5),
    Bar(name="x" * 300, kind="operation", began=9.999, seconds=0.001, level=2, changed=True),
    Bar(name="judge", kind="station", began=10, seconds=None, level=1),
    Bar(name="the gate is open", kind="gate", began=10, seconds=0),
]


@pytest.mark.parametrize("width", [20, 60, 80, 160])
def test_no_line_of_a_timeline_is_longer_than_the_terminal_is_wide(width: int) -> None:
    said = summary.timeline_lines(line(*WIDE), width)

    assert max(map(len, said)) <= max(width, 60)


def test_bars_are_drawn_where_they_belong() -> None:
    bars = [Bar(name=name, kind="unit", began=at, seconds=5) for name, at in (("a", 0), ("b", 5))]
    _, note, _, axis, first, second = summary.timeline_lines(line(*bars), 60)

    assert note == "No kernel is shown."
    assert (axis.split()[2:], axis[-4:]) == (["0", "5.0", "10.0"], "10.0")
    assert first.endswith("▒" * 20)
    assert first.split()[:3] == ["a", "0.00", "5.00"]
    assert second.index("▒") == len(first)
    assert len(second) == 60


def test_marks_say_what_changed_and_what_failed() -> None:
    bars = [
        Bar(name="one", kind="operation", began=0, seconds=1, changed=True),
        Bar(name="two\x07", kind="operation", began=1, seconds=1, failed=True),
        Bar(name="three", kind="operation", began=1, seconds=1),
    ]
    said = summary.timeline_lines(line(*bars), 80)[4:]

    assert [text[:8] for text in said] == ["+ one   ", "! two\\x0", "  three "]
