"""One run at a time, and who waits is told for whom."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyinfra_solo import paths
from pyinfra_solo.errors import LockedError
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.lock import RunLock, held, owner
from tests.support.machine import ENGINE

HOLD = """
import sys
from pathlib import Path
from pyinfra_solo.system.lock import held
from pyinfra_solo.system.deadline import Deadline
with held("boot", Deadline.after(10), print, Path(sys.argv[1])) as lock:
    lock.at("converge")
    print("held", flush=True)
    sys.stdin.read()
"""


def silent(text: str) -> None:
    del text


@contextmanager
def another_run(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, and is at converge."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run/lock"


def test_a_lock_that_nobody_ever_took_is_free(path: Path) -> None:
    assert owner(path) is None


def test_the_lock_of_the_machine_lies_on_its_tmpfs(machine_root: Path) -> None:
    with held("run", Deadline.after(1), silent):
        assert (machine_root / "run/pyinfra-solo/lock").exists()
        assert owner() is not None
    assert machine_root / "run/pyinfra-solo" == paths.RUN
    assert owner() is None


def test_who_looks_sees_the_owner_s_process_station_and_age(path: Path) -> None:
    with another_run(path) as other:
        who = owner(path)

        assert who is not None
        assert (who.pid, who.doing) == (other.pid, "converge")
        assert 0 <= who.age < 60


def test_who_waits_is_told_once_for_whom_and_gets_the_lock_when_it_is_free(path: Path) -> None:
    told: list[str] = []
    with another_run(path) as other:

        def say(text: str) -> None:
            told.append(text)
            other.kill()

        with held("run", Deadline.after(30), say, path):
            mine = owner(path)

    assert mine is not None
    assert mine.pid == os.getpid()
    assert len(told) == 1
    assert f"waiting for run {other.pid}," in told[0]
    assert told[0].endswith("is at converge")


def test_who_does_not_get_the_lock_in_time_is_told_by_whom_it_is_held(path: Path) -> None:
    with (
        another_run(path) as other,
        pytest.raises(LockedError) as caught,
        held("run", Deadline.after(0), silent, path),
    ):
        pytest.fail("two runs at once")

    assert re.search(
        rf"run {other.pid}, which has held the lock for \d+ s and is at converge", str(caught.value)
    )


def test_the_lock_of_an_owner_that_was_killed_is_free(path: Path) -> None:
    with another_run(path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()

        assert owner(path) is None
        with held("run", Deadline.after(0), silent, path):
            pass


def test_a_run_that_failed_gives_the_lock_back(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held("run", Deadline.after(0), silent, path):
        raise ZeroDivisionError

    assert owner(path) is None
    with held("run", Deadline.after(0), silent, path):
        pass


def test_a_child_of_the_owner_does_not_keep_the_lock(path: Path) -> None:
    """What an operation left running must not lock the machine for ever."""
    with held("run", Deadline.after(0), silent, path):
        child = subprocess.Popen(["sleep", "60"])
    try:
        assert owner(path) is None
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_wall_clock_that_steps_changes_no_age(
    path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = time.time
    with another_run(path):
        monkeypatch.setattr(time, "time", lambda: wall() + step)
        who = owner(path)

    assert who is not None
    assert 0 <= who.age < 60


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b'{"pid": "x"}', b"\xff\xfe", b"{}", b"null"])
def test_an_owner_that_has_not_said_who_it_is_is_an_owner_all_the_same(path: Path, text: bytes) -> None:
    with another_run(path):
        path.write_bytes(text)
        who = owner(path)

    assert who is not None
    assert "at its start" in str(who)


@pytest.mark.parametrize("station", ["gate open: " + "why? " * 5000, "\U0001f600" * 5000, "\udcff", '"\n'])
def test_a_station_may_have_any_name(path: Path, station: str) -> None:
    """`gate open --reason TEXT` is a run by the name of its reason."""
    with held(station, Deadline.after(0), silent, path) as lock:
        first = owner(path)
        lock.at("judge")
        second = owner(path)

    assert first is not None
    assert second is not None
    assert first.doing == station[:200]
    assert (second.pid, second.doing) == (os.getpid(), "judge")


def test_who_looks_never_reads_half_of_what_the_owner_says(path: Path) -> None:
    seen: set[int] = set()
    with held("start", Deadline.after(0), silent, path) as lock:
        done = threading.Event()

        def change() -> None:
            _change(lock, done)

        changing = threading.Thread(target=change)
        changing.start()
        for _ in range(2000):
            who = owner(path)
            assert who is not None
            seen.add(who.pid)
        done.set()
        changing.join()

    assert seen == {os.getpid()}


def _change(lock: RunLock, done: threading.Event) -> None:
    while not done.is_set():
        lock.at("a station with a long name")
        lock.at("short")
