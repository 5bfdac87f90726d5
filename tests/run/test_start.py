"""How a run begins and ends: whatever goes wrong in between is in the report, and at boot closes the gate."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo import gate
from pyinfra_solo.errors import DataError, DiskError, LockedError, RoleError, SoloError
from pyinfra_solo.gate import close_gate, open_gate, read_gate
from pyinfra_solo.report.store import last
from pyinfra_solo.run.start import start_run
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.lock import held, owner
from tests.test_gate import statement


def configure(machine_root: Path, text: str) -> None:
    (machine_root / "etc/pyinfra-solo").mkdir(parents=True, exist_ok=True)
    (machine_root / "etc/pyinfra-solo/config.toml").write_text(text)


def fails(name: str, error: BaseException, **options: Any) -> BaseException:
    with pytest.raises(BaseException) as caught, start_run(None, name, **options):  # noqa: PT011 - whatever comes out
        raise error
    return caught.value


def test_a_run_has_the_settings_their_deadline_and_the_lock(machine_root: Path) -> None:
    configure(machine_root, "[limits]\ndeadline = 60\n")
    with start_run(None, "run") as (settings, run):
        who = owner()
        assert settings.limits.deadline == 60
        assert run.deadline.left() <= 60
        assert who is not None
        assert (who.pid, who.station) == (os.getpid(), "run")
        with run.station("fetch"):
            now = owner()
            assert now is not None
            assert now.station == "fetch"
    assert owner() is None


def test_a_run_that_takes_no_lock_waits_for_nobody(machine_root: Path) -> None:
    assert machine_root.exists()
    with held("another", Deadline.after(1), print), start_run(None, "plan", keep_report=False, locked=False):
        pass


@pytest.mark.parametrize("name", ["boot", "run"])
def test_settings_that_are_wrong_are_in_the_report_of_the_run(machine_root: Path, name: str) -> None:
    configure(machine_root, "[ops]\nremote = []\n")
    with pytest.raises(DataError), start_run(None, name):
        pytest.fail("it began")
    found = last()

    assert found is not None
    assert (found.outcome, found.exit_code) == ("failed", 13)
    assert "unknown field `remote`" in (found.error or "")


def test_a_boot_closes_the_gate_before_it_reads_a_setting(machine_root: Path) -> None:
    configure(machine_root, "[")
    open_gate(statement())
    with pytest.raises(DataError), start_run(None, "boot", at_boot=True):
        pytest.fail("it began")

    assert not read_gate().open
    assert "is not TOML" in read_gate().reason


@pytest.mark.parametrize(
    "error", [RoleError("no role"), ValueError("a bug"), KeyboardInterrupt(), SystemExit(0)]
)
def test_a_boot_that_fails_by_anything_closes_the_gate_and_says_why(
    machine_root: Path, error: BaseException
) -> None:
    open_gate(statement())

    assert fails("boot", error, at_boot=True) is error
    assert machine_root.exists()
    found = last()
    assert found is not None
    assert (found.outcome, found.gate) == ("failed", "closed")
    assert found.exit_code != 0
    assert not read_gate().open


def test_a_run_by_hand_that_fails_before_it_changed_anything_leaves_the_gate(machine_root: Path) -> None:
    open_gate(statement())
    fails("run", RoleError("no role"))
    found = last()

    assert read_gate().open
    assert found is not None
    assert (found.outcome, found.exit_code, found.error, found.gate) == ("failed", 12, "no role", "open")
    assert machine_root.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_a_disk_does_to_a_station_has_a_name(machine_root: Path, number: int) -> None:
    problem = fails("run", OSError(number, os.strerror(number), "/var/lib/x"))
    found = last()

    assert isinstance(problem, DiskError)
    assert str(problem).startswith("The disk is full or read-only: /var/lib/x: ")
    assert found is not None
    assert found.error == str(problem)
    assert machine_root.exists()


def test_what_a_disk_does_to_a_child_has_the_same_name(machine_root: Path) -> None:
    problem = fails(
        "run", RuntimeError("exit code(128)\n  stderr: fatal: cannot write x: No space left on device")
    )

    assert isinstance(problem, DiskError)
    assert "\n" not in str(problem)
    assert "fatal: cannot write x: No space left on device. Make room, and run it once more." in str(problem)
    assert machine_root.exists()


@pytest.mark.parametrize("error", [None, RoleError("no role"), ValueError("a bug")])
def test_the_report_is_handed_over_whole_also_of_a_run_that_failed(
    machine_root: Path, error: BaseException | None
) -> None:
    given: list[dict[str, Any]] = []
    if error:
        fails("run \udcff", error, at_end=given.append)
    else:
        with start_run(None, "run \udcff", at_end=given.append) as (_, run):
            run.end("ready")

    assert len(given) == 1
    assert given[0]["outcome"] == ("failed" if error else "ready")
    assert given[0]["gate"] == "closed"
    assert given[0]["command"] == "run \\udcff"
    assert machine_root.exists()


def test_a_run_that_another_keeps_out_says_by_whom_and_is_not_the_last_run(machine_root: Path) -> None:
    """`status` shows the machine's last run: the one that works, not the one that could not."""
    configure(machine_root, "[limits]\nlock = 0\n")
    with start_run(None, "run") as (_, run):
        with run.station("converge"), pytest.raises(LockedError) as caught, start_run(None, "second"):
            pytest.fail("two runs at once")
        found = last()
    assert found is not None
    assert (found.command, found.station, found.outcome) == ("run", "converge", "running")
    assert f"run {os.getpid()}, which has held the lock for" in str(caught.value)
    assert "and is at converge" in str(caught.value)
    assert len(list((machine_root / "var/lib/pyinfra-solo/reports").iterdir())) == 2


def test_a_boot_waits_for_the_lock_longer_than_a_run_by_hand(
    machine_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes once, and nobody tries it again by hand."""
    configure(machine_root, "[limits]\nlock = 0\n")
    free = threading.Event()
    other = threading.Thread(target=_hold, args=(free,))
    other.start()
    while owner() is None:
        pass
    waited = threading.Timer(0.05, free.set)
    waited.start()
    with start_run(None, "boot", at_boot=True):
        pass
    other.join()

    assert "run: waiting for run " in capsys.readouterr().err


def _hold(free: threading.Event) -> None:
    with held("another", Deadline.after(10), print):
        free.wait(10)


def test_a_lock_s_wait_that_fails_at_boot_leaves_the_gate_closed(machine_root: Path) -> None:
    configure(machine_root, "[limits]\ndeadline = 0\n")
    with (
        held("another", Deadline.after(1), print),
        pytest.raises(LockedError),
        start_run(None, "boot", at_boot=True),
    ):
        pytest.fail("two runs at once")

    assert gate.read_gate().reason.startswith("Another run is at work: run ")


def test_reports_are_kept_as_many_as_the_settings_say(machine_root: Path) -> None:
    configure(machine_root, "[limits]\nreports = 2\n")
    for _ in range(4):
        fails("run", SoloError("no"))

    assert len(list((machine_root / "var/lib/pyinfra-solo/reports").glob("*.json"))) == 2


def test_an_operator_s_close_outlives_a_run_that_failed_before_it_changed_anything(
    machine_root: Path,
) -> None:
    open_gate(statement())
    close_gate("a look inside", reopenable=True)
    fails("run", RoleError("no role"))

    assert gate.kept_statement() == statement()
    assert machine_root.exists()
