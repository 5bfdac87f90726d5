"""What is this machine, is it in, since when, and if not, why not: the first lines answer."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from pyinfra_solo.gate import close_gate, open_gate
from pyinfra_solo.report import records as report
from pyinfra_solo.report import status
from pyinfra_solo.report.records import Operation, Report, ReportFile, Station
from pyinfra_solo.system.deadline import Deadline, Wait
from pyinfra_solo.system.lock import held
from tests.test_gate import statement


def left(**said: object) -> Report:
    """A run's report, where the next `status` finds it."""
    whole = {
        "run": "20261121T000000Z-abcdef",
        "command": "boot",
        "started": report.now(),
        "boot_id": "x",
        "engine": "0.1.0",
    }
    told = Report(**{**whole, **said})  # type: ignore[arg-type]
    ReportFile(told).write()
    return told


def page() -> list[str]:
    return status.lines(status.status())


def test_a_machine_that_never_ran(machine_root: Path) -> None:
    assert page() == ["machine   role not known yet", "gate      closed: never opened", "last run  none"]
    assert not status.status().ready
    assert machine_root.exists()


def test_a_machine_in_service_says_what_it_is_and_since_when(machine_root: Path) -> None:
    open_gate(statement(at=time.time() - 3 * 3600 - 60, checks=[{}, {}]))
    left(
        outcome="ready", exit_code=0, role="web", stage="production", sha="a" * 40, source="https://git.example.com/ops.git",
        operations=[Operation(name="x", changed=True), Operation(name="y", changed=False)],
        stations=[Station(name="identify", started=0.0, seconds=1.25, outcome="ok", waits=[Wait(what="a", why="b", seconds=1)])],
    )  # fmt: skip
    lines = page()

    assert status.status().ready
    assert lines[0] == "machine   web, production, i-0a1"
    assert lines[1].startswith("gate      open since 20")
    assert lines[1].endswith("Z (3 h), at commit aaaaaaaaaaaa, 2 checks passed")
    assert lines[2:] == [
        "last run  20261121T000000Z-abcdef, `boot`: ready, commit aaaaaaaaaaaa from https://git.example.com/ops.git",
        "          2 operations, 1 changed",
        "          identify      1.2 s  ok  1 waits",
    ]
    assert machine_root.exists()


def test_a_machine_that_is_out_says_why_and_where_its_run_failed(machine_root: Path) -> None:
    close_gate("There is no role 'wbe'.")
    left(
        outcome="failed",
        exit_code=12,
        station="resolve",
        error="There is no role 'wbe'.",
        instance_id="i-0a1",
    )
    lines = page()

    assert lines[0] == "machine   role not known yet, i-0a1"
    assert lines[1].startswith("gate      closed since 20")
    assert lines[1].endswith(": There is no role 'wbe'.")
    assert lines[2] == "last run  20261121T000000Z-abcdef, `boot`: failed, exit status 12"
    assert lines[3] == "why       resolve: There is no role 'wbe'."
    assert machine_root.exists()


def test_a_run_that_goes_on_is_no_killed_one(machine_root: Path) -> None:
    left(station="converge")
    with held("boot", Deadline.after(1), print) as lock:
        lock.at("converge")
        going = page()

    assert any(line.startswith("now       run ") and line.endswith(" and is at converge") for line in going)
    assert "last run  20261121T000000Z-abcdef, `boot`: running" in going
    assert "last run  20261121T000000Z-abcdef, `boot`: killed" in page()
    assert "why       it was killed at converge" in page()
    assert machine_root.exists()


@pytest.mark.parametrize("text", ["\x1b[2J\x07", "a\nmachine   web, production", "\udcff", "\u202egnp"])
def test_no_text_from_outside_moves_the_console_or_forges_a_line(machine_root: Path, text: str) -> None:
    close_gate(text)
    left(
        outcome="failed", exit_code=1, station="fetch", error=text, command=f"gate open: {text}", source=text
    )

    assert all(line.isprintable() for line in page())
    assert len([line for line in page() if line.startswith("machine")]) == 1
    assert machine_root.exists()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (10, r"\(1\d s\)"),
        (90, r"\(1 min\)"),
        (5400, r"\(1 h\)"),
        (36 * 3600, r"\(1 d\)"),
        (-3600, r"\(0 s\)"),
    ],
)
def test_how_long_ago_is_told_in_the_largest_whole_unit(machine_root: Path, seconds: int, told: str) -> None:
    """After a clock that stepped back an hour a time may lie ahead: then it is now."""
    open_gate(statement(at=time.time() - seconds))

    assert re.search(told, page()[1])
    assert machine_root.exists()


@pytest.mark.parametrize("open_", [True, False])
def test_as_json_it_is_the_same_and_whole(machine_root: Path, open_: bool) -> None:
    if open_:
        open_gate(statement())
    told = left(outcome="failed", exit_code=1, error="\udcff")
    with held("run", Deadline.after(1), print):
        said = json.loads(json.dumps(status.status().to_json()))

    assert said["ready"] is said["gate"]["open"] is open_
    assert said["running"]["doing"] == "run"
    assert said["last_run"]["run"] == told.run
    assert machine_root.exists()


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b'{"schema": 2}'])
def test_a_report_that_cannot_be_read_is_none(machine_root: Path, text: bytes) -> None:
    (machine_root / "var/lib/pyinfra-solo/last-run.json").write_bytes(text)

    assert page()[-1] == "last run  none"
