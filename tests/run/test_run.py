"""What accompanies a run: its time, its voice, and its report at every station."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyinfra_solo.errors import DeadlineError, RoleError
from pyinfra_solo.run.console import PlainConsole
from pyinfra_solo.run.run import Run
from pyinfra_solo.system.deadline import Deadline, Wait
from tests.report.test_records import validated
from tests.support.line import new_run
from tests.support.machine import ENGINE

STOPS = """
import sys
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.console import PlainConsole
from pyinfra_solo.system.deadline import Deadline
run = Run("boot", Deadline.after(60), PlainConsole(sys.stderr))
with run.station("identify"):
    run.report.instance_id = "i-0a1"
    run.say("i-0a1 in eu-west-1a")
with run.station("fetch"):
    print("there", flush=True)
    sys.stdin.read()
"""


def reported(machine_root: Path) -> dict[str, object]:
    return validated((machine_root / "var/lib/pyinfra-solo/last-run.json").read_bytes())


def kept(machine_root: Path, heard: io.StringIO | None = None) -> Run:
    assert machine_root.exists()
    return Run("run", Deadline.after(60), PlainConsole(heard or io.StringIO()))


def test_a_station_is_timed_told_and_reported() -> None:
    heard = io.StringIO()
    run = new_run(output=heard)
    with run.station("fetch") as station:
        run.say("ops at 3f2c1ab")

    assert run.report.stations == [station]
    assert (station.name, station.outcome, station.detail) == ("fetch", "ok", ["ops at 3f2c1ab"])
    assert station.seconds is not None
    assert heard.getvalue().splitlines() == ["fetch: ops at 3f2c1ab", f"fetch: ok in {station.seconds:.1f} s"]


@pytest.mark.parametrize("kind", [RoleError, ValueError, KeyboardInterrupt, SystemExit])
def test_a_station_that_ends_by_any_error_has_failed(kind: type[BaseException]) -> None:
    run = new_run()
    with pytest.raises(kind), run.station("resolve"):
        raise kind("no")

    assert run.report.stations[0].outcome == "failed"
    assert run.report.stations[0].seconds is not None


def test_a_run_that_is_out_of_time_does_not_enter_the_next_station() -> None:
    run = new_run(seconds=0)
    with pytest.raises(DeadlineError, match="Out of time while coming to converge"), run.station("converge"):
        pytest.fail("it was entered")

    assert run.report.stations[0].outcome == "failed"


def test_the_lock_is_told_of_each_station() -> None:
    seen: list[str] = []
    run = new_run()
    run.at = seen.append
    for name in ("identify", "fetch"):
        with run.station(name):
            pass

    assert seen == ["identify", "fetch"]


def test_a_wait_is_told_and_reported_under_its_station() -> None:
    heard = io.StringIO()
    run = new_run(output=heard)
    with run.station("identify") as station:
        run.waited(Wait(what="metadata service", why="answered 503", seconds=0.21))

    assert station.waits == [Wait(what="metadata service", why="answered 503", seconds=0.21)]
    assert "identify: metadata service: answered 503; again in 0.2 s" in heard.getvalue()


def test_what_is_said_before_the_first_station_is_the_run_s() -> None:
    heard = io.StringIO()
    new_run(output=heard).say("waiting for run 17")

    assert heard.getvalue() == "run: waiting for run 17\n"


@pytest.mark.parametrize(
    ("station", "changing", "touched"),
    [
        ("identify", False, False),
        ("converge", False, False),
        ("converge", True, True),
        ("judge", False, True),
        ("open gate", False, True),
    ],
)
def test_a_machine_is_touched_once_a_change_has_begun_or_its_checks_are_made(
    station: str, changing: bool, touched: bool
) -> None:
    run = new_run()
    with run.station(station):
        run.changing = changing

    assert run.touched() is touched


def test_the_report_on_disk_says_where_a_run_is(machine_root: Path) -> None:
    run = kept(machine_root)
    with run.station("fetch"):
        said = reported(machine_root)

    assert (said["station"], said["outcome"], said["exit_code"], said["command"]) == (
        "fetch",
        "running",
        None,
        "run",
    )


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (None, 0, None),
        (RoleError("no role"), 12, "no role"),
        (ValueError("a bug"), 1, "a bug"),
        (ValueError(), 1, "ValueError"),
    ],
)
def test_the_last_word_is_the_outcome_the_exit_status_and_the_reason(
    machine_root: Path, error: Exception | None, code: int, told: str | None
) -> None:
    run = kept(machine_root)
    run.end("failed" if error else "ready", error)
    said = reported(machine_root)

    assert (said["outcome"], said["exit_code"], said["error"]) == ("failed" if error else "ready", code, told)
    assert said["seconds"] is not None


def test_a_plan_leaves_no_report(machine_root: Path) -> None:
    run = new_run(keep_report=False)
    with run.station("plan"):
        pass
    run.end("planned")

    assert [path.name for path in (machine_root / "var/lib/pyinfra-solo").iterdir()] == ["reports"]
    assert [path.name for path in (machine_root / "var/lib/pyinfra-solo/reports").iterdir()] == []


def test_a_report_that_cannot_be_written_is_told_once_and_stops_nothing(machine_root: Path) -> None:
    state, heard = machine_root / "var/lib/pyinfra-solo", io.StringIO()
    (state / "reports").rmdir()
    state.rmdir()
    state.touch()
    run = kept(machine_root, heard)
    for name in ("identify", "fetch"):
        with run.station(name):
            pass
    run.end("ready")

    assert heard.getvalue().count("report: cannot be written: ") == 1
    assert json.loads((machine_root / "run/pyinfra-solo/last-run.json").read_text())["outcome"] == "ready"


def test_the_report_of_a_run_that_was_killed_is_valid_and_says_where_it_was(machine_root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPS], env={**os.environ, "PYTHONPATH": str(ENGINE)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    said = reported(machine_root)

    assert (said["outcome"], said["station"], said["instance_id"]) == ("running", "fetch", "i-0a1")
    stations = said["stations"]
    assert isinstance(stations, list)
    assert [(one["name"], one["outcome"]) for one in stations] == [("identify", "ok"), ("fetch", "running")]
