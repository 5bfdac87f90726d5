"""start_run: settings, deadline, lock, report and gate around a run, whatever goes wrong inside."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo import gate
from pyinfra_solo.errors import DataError, DiskError, LockedError, PausedError, RoleError, SoloError
from pyinfra_solo.gate import close_gate, open_gate, read_gate
from pyinfra_solo.report.records import Report
from pyinfra_solo.report.store import last
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.start import start_run
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.lock import held, owner
from tests.test_gate import statement

pytestmark = pytest.mark.usefixtures("machine_root")


def configure(machine_root: Path, text: str) -> None:
    (machine_root / "etc/pyinfra-solo").mkdir(parents=True, exist_ok=True)
    (machine_root / "etc/pyinfra-solo/config.toml").write_text(text)


def failed(
    name: str,
    error: BaseException | None = None,
    inside: Callable[[Run], None] = lambda _run: None,
    **options: Any,
) -> BaseException:
    """Start a run that fails: inside, by this error, or before it begins. Return what comes out."""
    with pytest.raises(BaseException) as caught, start_run(None, name, **options) as (_, run):  # noqa: PT011, PT012
        inside(run)
        raise error or AssertionError("it began")
    return caught.value


def last_report() -> Report:
    found = last()
    assert found is not None
    return found


def test_run_has_settings_their_deadline_and_the_lock(machine_root: Path) -> None:
    configure(machine_root, "[limits]\ndeadline = 60\n")
    with start_run(None, "run") as (settings, run):
        found = owner()
        assert settings.limits.deadline == 60
        assert run.deadline.left() <= 60
        assert found is not None
        assert (found.pid, found.station) == (os.getpid(), "run")
        with run.station("fetch"):
            found = owner()
            assert found is not None
            assert found.station == "fetch"
    assert owner() is None


def test_run_without_the_lock_waits_for_nobody() -> None:
    with held("another", Deadline.after(1), print), start_run(None, "plan", keep_report=False, locked=False):
        pass


def test_settings_that_cannot_be_read_are_in_the_report(machine_root: Path) -> None:
    configure(machine_root, "[ops]\nremote = []\n")
    assert isinstance(failed("run"), DataError)

    assert (last_report().outcome, last_report().exit_code) == ("failed", 13)
    assert "unknown field `remote`" in (last_report().error or "")


@pytest.mark.parametrize(
    ("settings", "other", "error", "reason"),
    [
        ("[", False, None, "is not TOML"),
        ("[limits]\ndeadline = 0\n", True, None, "Another run is at work: run "),
        ("", False, RoleError("no role"), "no role"),
        ("", False, ValueError("a bug"), "a bug"),
        ("", False, KeyboardInterrupt(), "KeyboardInterrupt"),
        ("", False, SystemExit(0), "0"),
    ],
    ids=["settings", "lock", "a SoloError", "a bug", "a signal", "an exit"],
)
def test_boot_that_fails_by_anything_closes_the_gate(
    machine_root: Path, settings: str, other: bool, error: BaseException | None, reason: str
) -> None:
    configure(machine_root, settings)
    open_gate(statement())
    if other:
        with held("another", Deadline.after(1), print):
            problem = failed("boot", error, at_boot=True)
    else:
        problem = failed("boot", error, at_boot=True)
        assert (last_report().outcome, last_report().gate) == ("failed", "closed")
        assert last_report().exit_code != 0

    assert problem is error or isinstance(problem, SoloError)
    assert not read_gate().open
    assert reason in read_gate().reason


def test_run_that_fails_before_a_change_leaves_the_gate_open() -> None:
    open_gate(statement())
    failed("run", RoleError("no role"))
    report = last_report()

    assert read_gate().open
    assert (report.outcome, report.exit_code, report.error, report.gate) == ("failed", 12, "no role", "open")


def test_run_that_fails_in_doubt_closes_the_gate_with_its_reason() -> None:
    def change(run: Run) -> None:
        run.gate_in_doubt = True

    open_gate(statement())
    failed("run", RoleError("no role"), change)

    assert (read_gate().open, read_gate().reason) == (False, "no role")


def test_run_that_fails_before_a_change_keeps_a_close_by_hand() -> None:
    open_gate(statement())
    close_gate("maintenance", reopenable=True)
    failed("run", RoleError("no role"))

    assert gate.kept_statement() == statement()


@pytest.mark.parametrize("at_boot", [True, False])
def test_paused_run_leaves_a_close_by_hand_as_it_is(at_boot: bool) -> None:
    """The operator's reason and the statement that `gate open` needs stay."""

    def pause(run: Run) -> None:
        run.gate_in_doubt = True
        close_gate("maintenance", reopenable=True)
        open_gate(statement(), began=run.began)

    assert isinstance(failed("run", inside=pause, at_boot=at_boot), PausedError)
    assert (read_gate().open, read_gate().reason) == (False, "maintenance")
    assert gate.kept_statement() == statement()
    assert last_report().exit_code == 21


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_error_of_a_full_disk_becomes_a_disk_error(number: int) -> None:
    problem = failed("run", OSError(number, os.strerror(number), "/var/lib/x"))

    assert isinstance(problem, DiskError)
    assert str(problem).startswith("The disk is full or read-only: /var/lib/x: ")
    assert last_report().error == str(problem)


def test_full_disk_of_a_child_becomes_a_disk_error() -> None:
    problem = failed(
        "run", RuntimeError("exit code(128)\n  stderr: fatal: cannot write x: No space left on device")
    )

    assert isinstance(problem, DiskError)
    assert "\n" not in str(problem)
    assert "fatal: cannot write x: No space left on device. Make room, and run it once more." in str(problem)


@pytest.mark.parametrize("error", [None, RoleError("no role"), ValueError("a bug")])
def test_at_end_is_given_the_whole_report_even_on_failure(error: BaseException | None) -> None:
    given: list[dict[str, Any]] = []
    if error:
        failed("run \udcff", error, at_end=given.append)
    else:
        with start_run(None, "run \udcff", at_end=given.append) as (_, run):
            run.end("ready")

    (report,) = given
    assert report["outcome"] == ("failed" if error else "ready")
    assert (report["gate"], report["command"]) == ("closed", "run \\udcff")


def test_run_without_the_lock_names_its_owner_and_is_not_last(machine_root: Path) -> None:
    """`status` shows the machine's last run: the one that works, not the one that could not start."""
    configure(machine_root, "[limits]\nlock = 0\n")
    with start_run(None, "run") as (_, run), run.station("converge"):
        problem = failed("second")
        report = last_report()
    assert isinstance(problem, LockedError)
    assert f"run {os.getpid()}, which has held the lock for" in str(problem)
    assert "and is at converge" in str(problem)
    assert (report.command, report.station, report.outcome) == ("run", "converge", "running")
    assert len(list((machine_root / "var/lib/pyinfra-solo/reports").iterdir())) == 2


def test_boot_waits_longer_for_the_lock_than_a_run(
    machine_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes once, and nobody starts it by hand. Its gate is closed before all else."""
    open_gate(statement())
    configure(machine_root, "[limits]\nlock = 0\n")
    free = threading.Event()
    other = threading.Thread(target=hold, args=(free,))
    other.start()
    while owner() is None:
        pass
    waited = threading.Timer(0.05, free.set)
    waited.start()
    with start_run(None, "boot", at_boot=True):
        assert not read_gate().open
    other.join()

    assert "run: waiting for run " in capsys.readouterr().err


def hold(free: threading.Event) -> None:
    with held("another", Deadline.after(10), print):
        free.wait(10)


def test_as_many_reports_are_kept_as_the_settings_want(machine_root: Path) -> None:
    configure(machine_root, "[limits]\nreports = 2\n")
    for _ in range(4):
        failed("run", SoloError("no"))

    assert len(list((machine_root / "var/lib/pyinfra-solo/reports").glob("*.json"))) == 2
