"""A report as text: the summary, and what was slow and why."""

from __future__ import annotations

from typing import Any

import pytest

from pyinfra_solo.checks import Finding
from pyinfra_solo.gate import boot_id
from pyinfra_solo.protocol import NotIdempotent
from pyinfra_solo.report import text
from pyinfra_solo.report.records import Operation, Report, Station, Waited
from pyinfra_solo.system.deadline import Deadline, Wait
from pyinfra_solo.system.lock import held
from tests.report import test_records as records

NGINX = Operation(
    name="nginx is installed", changed=True, seconds=3.1, cpu=1.2,
    waits=[Waited(what="sh packages", seconds=3.0), Waited(what="fact DebPackages", seconds=0.05)],
)  # fmt: skip


def some(**values: Any) -> Report:
    """A run that ended well, without stations and operations."""
    return records.some(**{"outcome": "ready", "exit_code": 0, "seconds": 12.34, **values})


def test_summary_of_a_good_run_goes_from_outcome_to_checks() -> None:
    report = some(
        role="web", stage="production", instance_id="i-0a1", sha="a" * 40, source="disk",
        stations=[Station(name="identify", started=0, seconds=1.25, outcome="ok", waits=[Wait(what="a", why="b", seconds=1)] * 2)],
        operations=[NGINX, Operation(name="nginx runs", changed=False)],
        not_idempotent=[NotIdempotent(name="the clock is right", commands=["date -s now"])],
        findings=[Finding(check="unit nginx", passed=True, detail="", tries=1, seconds=0.5)],
    )  # fmt: skip

    assert text.lines(report) == [
        "run       20261121T000000Z-abcdef, `boot`: ready in 12.3 s, commit aaaaaaaaaaaa from disk",
        "machine   web, production, i-0a1",
        "",
        "stations",
        "     1.2 s  identify, 2 waits",
        "",
        "2 operations: 1 changed, 0 failed",
        "    3.10 s  changed  nginx is installed",
        "",
        "not idempotent",
        "  the clock is right",
        "                     date -s now",
        "",
        "1 check",
        "     0.5 s  unit nginx: passed",
    ]


def test_summary_of_a_failed_run_shows_error_station_and_output() -> None:
    found = text.lines(
        some(
            outcome="failed", exit_code=1, station="converge", error="nginx is installed failed.",
            stations=[Station(name="converge", started=0, seconds=2.0, outcome="failed"), Station(name="judge", started=0)],
            operations=[Operation(name="nginx is installed", changed=False, failed=True, seconds=2.0, output=["E: \x1b[31mno"])],
            findings=[Finding(check="unit nginx", passed=False, detail="it is inactive", tries=3, seconds=60)],
        )
    )  # fmt: skip

    assert found[0].endswith("`boot`: failed in 12.3 s, exit status 1")
    assert found[2] == "why       converge: nginx is installed failed."
    assert "     2.0 s  converge: failed" in found
    assert "         …  judge: running" in found
    assert "    2.00 s  FAILED   nginx is installed" in found
    assert "                     E: \\x1b[31mno" in found
    assert "    60.0 s  unit nginx: FAILED: it is inactive" in found


@pytest.mark.usefixtures("machine_root")
def test_unfinished_run_without_the_lock_was_killed() -> None:
    report = some(outcome="running", station="fetch", boot_id=boot_id())

    assert text.outcome(report) == "killed at fetch"
    with held("boot", Deadline.after(1), lambda _text: None):
        assert text.outcome(report) == "running, at fetch"
        report.boot_id = "another"
        assert text.outcome(report) == "killed at fetch"


def test_slow_operation_shows_what_it_waited_for() -> None:
    assert text.slow_lines(some(operations=[NGINX]), 120) == [
        "    3.10 s  nginx is installed  sh packages 3.00 s, fact DebPackages 0.05 s; CPU 1.20 s"
    ]
    assert text.slow_lines(some(operations=[NGINX]), 80) == [
        "    3.10 s  nginx is installed",
        "                sh packages 3.00 s, fact DebPackages 0.05 s; CPU 1.20 s",
    ]


def test_slow_lists_ten_operations_the_slowest_first() -> None:
    report = some(operations=[Operation(name=f"n{n}", changed=False, seconds=n % 7) for n in range(20)])
    found = text.slow_lines(report, 80)

    assert [line.split()[0] for line in found] == [f"{n}.00" for n in (6, 6, 5, 5, 5, 4, 4, 4, 3, 3)]


def test_slow_without_operations_says_so() -> None:
    assert text.slow_lines(some(), 80) == ["This run reached no operation."]


def test_report_without_station_or_source_names_neither() -> None:
    """`gate open` has no source, and may fail before its first station."""
    lines = text.headline(
        some(outcome="failed", error="Not reopened.", sha="a" * 40, source=None, station=None)
    )
    assert lines[0].endswith(", commit aaaaaaaaaaaa")
    assert lines[1] == "why       Not reopened."
