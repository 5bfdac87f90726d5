"""The status of a machine: what it is, whether it is in service, since when, and if not, why."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from pyinfra_solo import paths
from pyinfra_solo.gate import boot_id, close_gate, open_gate
from pyinfra_solo.report import status
from pyinfra_solo.report.records import Operation, Report, Station
from pyinfra_solo.report.store import ReportFile
from pyinfra_solo.system import kept
from pyinfra_solo.system.deadline import Deadline, Wait
from pyinfra_solo.system.lock import held
from tests.report.test_records import some
from tests.test_gate import statement

pytestmark = pytest.mark.usefixtures("machine_root")


def leave(**values: Any) -> Report:
    """Leave a run's report where the next `status` finds it."""
    report = some(**values)
    ReportFile(report).write()
    return report


def page() -> list[str]:
    return status.lines(status.status())


def test_machine_that_never_ran_has_no_role_and_no_run() -> None:
    assert page() == ["machine   role not known", "gate      closed: never opened", "last run  none"]
    assert not status.status().ready


def test_machine_in_service_shows_role_gate_and_last_run() -> None:
    open_gate(statement(at=time.time() - 3 * 3600 - 60, checks=[{}, {}]))
    leave(
        outcome="ready", exit_code=0, role="web", stage="production", sha="a" * 40, source="https://git.example.com/ops.git",
        operations=[Operation(name="x", changed=True), Operation(name="y", changed=False)], seconds=2.5,
        stations=[Station(name="identify", started=0.0, seconds=1.25, outcome="ok", waits=[Wait(what="a", why="b", seconds=1)])],
    )  # fmt: skip
    lines = page()

    assert status.status().ready
    assert lines[0] == "machine   web, production, i-0a1"
    assert lines[1].startswith("gate      open since 20")
    assert lines[1].endswith("Z (3 h), at commit aaaaaaaaaaaa, 2 checks passed")
    assert lines[2:] == [
        "last run  20261121T000000Z-abcdef, `boot`: ready in 2.5 s, commit aaaaaaaaaaaa from https://git.example.com/ops.git",
        "          2 operations: 1 changed, 0 failed",
        "             1.2 s  identify, 1 wait",
    ]


def test_machine_out_of_service_shows_why_and_where_it_failed() -> None:
    error = "There is no role 'wbe'."
    close_gate(error)
    leave(outcome="failed", exit_code=12, station="resolve", error=error, instance_id="i-0a1")
    lines = page()

    assert lines[0] == "machine   role not known, i-0a1"
    assert lines[1].startswith("gate      closed since 20")
    assert lines[1].endswith(": There is no role 'wbe'.")
    assert lines[2] == "last run  20261121T000000Z-abcdef, `boot`: failed, exit status 12"
    assert lines[3] == "why       resolve: There is no role 'wbe'."


def test_release_that_was_kept_is_named_with_both_commits() -> None:
    """The operation's warning scrolls away; the machine stays at the older release."""
    kept.record(kept.Kept("shop", "a" * 40, "b" * 40, "no answer in 60 s"), paths.RUN / "kept")

    assert "release   shop: kept at aaaaaaaaaaaa instead of bbbbbbbbbbbb: no answer in 60 s" in page()
    assert status.status().to_json()["kept"][0]["wanted"] == "b" * 40


def test_run_that_holds_the_lock_is_running() -> None:
    leave(station="converge", boot_id=boot_id())
    with held("boot", Deadline.after(1), print) as lock:
        lock.at("converge")
        lines = page()

    assert lines[2].startswith("running   run ")
    assert lines[2].endswith(" and is at converge")
    assert lines[3] == "last run  20261121T000000Z-abcdef, `boot`: running, at converge"


@pytest.mark.parametrize("text", ["\x1b[2J\x07", "a\nmachine   web, production", "\udcff", "\u202egnp"])
def test_text_from_outside_neither_moves_the_cursor_nor_adds_a_line(text: str) -> None:
    close_gate(text)
    leave(
        outcome="failed", exit_code=1, station="fetch", error=text, command=f"gate open: {text}", source=text
    )

    assert all(line.isprintable() for line in page())
    assert len([line for line in page() if line.startswith("machine")]) == 1


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (10, r"\(1\d s\)"),
        (90, r"\(1 min\)"),
        (5400, r"\(1 h\)"),
        (36 * 3600, r"\(1 d\)"),
        (-3600, r"\(0 s\)"),
    ],
)
def test_age_is_in_the_largest_whole_unit(seconds: int, age: str) -> None:
    """After a clock that stepped back an hour a time may lie ahead: then it is now."""
    open_gate(statement(at=time.time() - seconds))

    assert re.search(age, page()[1])


@pytest.mark.parametrize("open_", [True, False])
def test_json_has_gate_owner_and_report(open_: bool) -> None:
    if open_:
        open_gate(statement())
    report = leave(outcome="failed", exit_code=1, error="\udcff")
    with held("run", Deadline.after(1), print):
        found = json.loads(json.dumps(status.status().to_json()))

    assert found["ready"] is found["gate"]["open"] is open_
    assert found["running"]["station"] == "run"
    assert found["last_run"]["run"] == report.run
