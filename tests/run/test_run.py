"""Run: stations, messages, events and the report of one run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyinfra_solo import protocol
from pyinfra_solo.errors import DeadlineError, RoleError
from pyinfra_solo.protocol import AnyEvent, NotIdempotent, OperationEnded
from pyinfra_solo.report.records import Operation, Waited
from pyinfra_solo.run.run import Run
from pyinfra_solo.system.deadline import Wait
from tests.report.test_records import validated
from tests.support.line import new_run
from tests.support.machine import ENGINE

STOPS_AT_FETCH = """
import sys
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.console import PlainConsole
from pyinfra_solo.system.deadline import Deadline
run = Run("boot", Deadline.after(60), PlainConsole(sys.stderr))
with run.station("identify"):
    run.record(instance_id="i-0a1")
    run.say("i-0a1 in eu-west-1a")
with run.station("fetch"):
    print("there", flush=True)
    sys.stdin.read()
"""


def on_disk(machine_root: Path) -> dict[str, object]:
    return validated((machine_root / "var/lib/pyinfra-solo/last-run.json").read_bytes())


def test_station_is_timed_shown_and_reported(run: Run, output: io.StringIO) -> None:
    with run.station("fetch") as station:
        run.say("ops at 3f2c1ab")

    assert run.report.stations == [station]
    assert (station.name, station.outcome, station.detail) == ("fetch", "ok", ["ops at 3f2c1ab"])
    assert station.seconds is not None
    assert output.getvalue().splitlines() == [
        "fetch: ops at 3f2c1ab",
        f"fetch: ok in {station.seconds:.1f} s",
    ]


@pytest.mark.parametrize("kind", [RoleError, ValueError, KeyboardInterrupt, SystemExit])
def test_station_that_raises_any_error_has_failed(run: Run, kind: type[BaseException]) -> None:
    with pytest.raises(kind), run.station("resolve"):
        raise kind("no")

    assert run.report.stations[0].outcome == "failed"
    assert run.report.stations[0].seconds is not None


def test_run_out_of_time_does_not_enter_the_next_station() -> None:
    run = new_run(seconds=0)
    with pytest.raises(DeadlineError, match="Out of time while coming to converge"), run.station("converge"):
        pytest.fail("it was entered")

    assert run.report.stations[0].outcome == "failed"


def test_lock_is_given_the_name_of_each_station(run: Run) -> None:
    seen: list[str] = []
    run.on_station = seen.append
    for name in ("identify", "fetch"):
        with run.station(name):
            pass

    assert seen == ["identify", "fetch"]


def test_wait_is_shown_and_reported_under_its_station(run: Run, output: io.StringIO) -> None:
    wait = Wait(what="metadata service", why="answered 503", seconds=0.21)
    with run.station("identify") as station:
        run.waited(wait)

    assert station.waits == [wait]
    assert "identify: metadata service: answered 503; next try in 0.2 s" in output.getvalue()


def test_message_before_the_first_station_is_of_the_run(run: Run, output: io.StringIO) -> None:
    run.say("waiting for run 17")

    assert output.getvalue() == "run: waiting for run 17\n"
    assert run.report.stations[0].detail == ["waiting for run 17"]


def test_unknown_field_of_the_report_cannot_be_recorded(run: Run) -> None:
    with pytest.raises(AttributeError):
        run.record(roll="web")


ENDED = OperationEnded(
    name="two", changed=True, failed=True, seconds=1.5, output=["no"], began=7.0, cpu=0.5,
    waits=[protocol.Wait(what="sh", seconds=1.0)], diff=["+x"],
)  # fmt: skip
CHECKED = protocol.IdempotenceChecked(
    operations=[protocol.NotIdempotent(name="two", commands=["run sh"])], seconds=0.25
)


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ([protocol.Started(protocol=1), protocol.Declared(roles=["web"], checks=[])], []),
        ([protocol.OperationStarted(number=1, name="one")], []),
        ([ENDED], ["converge: 1/0 two: FAILED in 1.50 s", "converge:   no"]),
        (
            [protocol.OperationsDeclared(names=["one", "two"]), OperationEnded(name="one", changed=False), ENDED],
            ["converge: 1/2 one: ok in 0.00 s", "converge: 2/2 two: FAILED in 1.50 s", "converge:   no"],
        ),
        ([protocol.Changing()], []),
        (
            [protocol.Evaluated(operations=9, seconds=0.01)],
            ["converge: evaluated 9 operations before the first change (0.01 s)"],
        ),
        ([protocol.GateClosed()], ["converge: gate closed before the first change"]),
        (
            [protocol.NativeOff(reason="native facts off: this pyinfra is another")],
            ["converge: native facts off: this pyinfra is another"],
        ),
        ([protocol.IdempotenceCheckStarted()], []),
        (
            [protocol.IdempotenceChecked(operations=[], seconds=0.25)],
            ["converge: idempotence check: ok (0.25 s)"],
        ),
        ([CHECKED], ["converge: idempotence check: two would change something once more (0.25 s)"]),
        ([protocol.Failed(code=1, message="no"), protocol.Done()], []),
    ],
    ids=lambda value: type(value[-1]).__name__ if value and not isinstance(value[-1], str) else "",
)  # fmt: skip
def test_event_is_shown_on_the_console(
    run: Run, output: io.StringIO, events: list[AnyEvent], shown: list[str]
) -> None:
    with run.station("converge"):
        for event in events:
            run.observe(event)

        assert output.getvalue().splitlines() == shown


def test_events_of_operations_are_in_the_report(run: Run) -> None:
    with run.station("converge"):
        run.observe(ENDED)
        run.observe(CHECKED)

    (operation,) = run.report.operations
    assert operation == Operation(
        name="two", changed=True, failed=True, seconds=1.5, output=["no"], began=7.0, cpu=0.5,
        waits=[Waited(what="sh", seconds=1.0)], diff=["+x"],
    )  # fmt: skip
    assert run.report.not_idempotent == [NotIdempotent(name="two", commands=["run sh"])]


def test_plan_reports_operations_and_does_not_show_them(run: Run, output: io.StringIO) -> None:
    with run.station("plan"):
        run.observe_plan(protocol.OperationStarted(number=1, name="two"))
        run.observe_plan(ENDED)

        assert output.getvalue() == ""
    assert [one.name for one in run.report.operations] == ["two"]


def test_only_a_change_puts_the_gate_in_doubt(run: Run) -> None:
    """A failure before the first change leaves an open gate alone."""
    for event in (
        protocol.OperationStarted(number=1, name="two"),
        ENDED,
        protocol.Failed(code=1, message="no"),
    ):
        with run.station("converge"):
            run.observe(event)
    assert not run.gate_in_doubt
    run.observe(protocol.Changing())
    assert run.gate_in_doubt


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (None, 0, None),
        (RoleError("no role"), 12, "no role"),
        (ValueError("a bug"), 1, "a bug"),
        (ValueError(), 1, "ValueError"),
    ],
)
def test_end_reports_outcome_exit_status_and_error(
    machine_root: Path, error: Exception | None, code: int, text: str | None
) -> None:
    new_run().end("failed" if error else "ready", error)
    report = on_disk(machine_root)

    assert (report["outcome"], report["exit_code"], report["error"]) == (
        "failed" if error else "ready",
        code,
        text,
    )
    assert report["seconds"] is not None


def test_run_that_keeps_no_report_writes_nothing(machine_root: Path) -> None:
    run = new_run(keep_report=False)
    with run.station("plan"):
        pass
    run.end("planned")

    assert run.events_file is None
    assert [path.name for path in (machine_root / "var/lib/pyinfra-solo").rglob("*")] == ["reports"]


def test_report_that_cannot_be_written_is_shown_once(machine_root: Path, output: io.StringIO) -> None:
    """The run goes on, and `last-run.json` on the gate's tmpfs has the outcome."""
    state = machine_root / "var/lib/pyinfra-solo"
    (state / "reports").rmdir()
    state.rmdir()
    state.touch()
    run = new_run(output=output)
    for name in ("identify", "fetch"):
        with run.station(name):
            pass
    run.end("ready")

    assert output.getvalue().count("report: cannot be written: ") == 1
    assert json.loads((machine_root / "run/pyinfra-solo/last-run.json").read_text())["outcome"] == "ready"


def test_killed_run_leaves_a_valid_report_of_its_station(machine_root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPS_AT_FETCH], env={**os.environ, "PYTHONPATH": str(ENGINE)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    report = on_disk(machine_root)

    assert (report["outcome"], report["exit_code"]) == ("running", None)
    assert (report["command"], report["station"], report["instance_id"]) == ("boot", "fetch", "i-0a1")
    stations = report["stations"]
    assert isinstance(stations, list)
    assert [(one["name"], one["outcome"]) for one in stations] == [("identify", "ok"), ("fetch", "running")]
