"""One run at a time; a run that waits says for which."""

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
from subprocess import PIPE

import pytest

from pyinfra_solo import paths
from pyinfra_solo.errors import LockedError
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.lock import Owner, flock, held, owner
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


def test_the_lock_is_for_its_owner_alone_also_where_it_was_not(path: Path) -> None:
    """A descriptor that can only read is enough for flock(2) to hold up every run."""
    path.parent.mkdir()
    path.touch(0o644)
    with held("boot", Deadline.after(10), silent, path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_machine_s_lock_is_below_run(machine_root: Path) -> None:
    assert owner() is None
    with held("run", Deadline.after(1), silent):
        assert (machine_root / "run/pyinfra-solo/lock").exists()
        assert owner() is not None
    assert machine_root / "run/pyinfra-solo" == paths.RUN
    assert owner() is None


@pytest.mark.parametrize("step", [-3600, 0, 3600])
def test_the_owner_has_a_process_a_station_and_an_age(
    path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age is right although the wall clock is set meanwhile."""
    wall = time.time
    with another_run(path) as other:
        monkeypatch.setattr(time, "time", lambda: wall() + step)
        who = owner(path)

    assert who is not None
    assert (who.pid, who.station) == (other.pid, "converge")
    assert 0 <= who.age < 60


def test_a_waiting_run_says_once_for_whom_and_gets_the_free_lock(path: Path) -> None:
    lines: list[str] = []
    with another_run(path) as other:

        def say(text: str) -> None:
            lines.append(text)
            other.kill()

        with held("run", Deadline.after(30), say, path):
            mine = owner(path)

    assert mine is not None
    assert mine.pid == os.getpid()
    assert len(lines) == 1
    assert f"waiting for run {other.pid}," in lines[0]
    assert lines[0].endswith("is at converge")


def test_a_lock_that_stays_held_is_an_error_that_names_the_owner(path: Path) -> None:
    with (
        another_run(path) as other,
        pytest.raises(LockedError) as caught,
        held("run", Deadline.after(0), silent, path),
    ):
        pytest.fail("two runs at once")

    message = rf"run {other.pid}, which has held the lock for \d+ s and is at converge"
    assert re.search(message, str(caught.value))


def test_owner_that_is_a_run_is_named_without_all_locks_of_the_machine(path: Path) -> None:
    """Another account's 300,000 locks took 25 s to read."""
    text = """
import sys
from pathlib import Path
from pyinfra_solo.system.lock import owner
opened = []
sys.addaudithook(lambda event, words: event == "open" and opened.append(str(words[0])))
print(owner(Path(sys.argv[1])).pid, "/proc/locks" in opened)
"""
    with another_run(path) as other:
        done = subprocess.run(
            [sys.executable, "-c", text, str(path)],
            env={**os.environ, "PYTHONPATH": str(ENGINE)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == f"{other.pid} False\n"


def test_a_killed_owner_s_lock_is_free(path: Path) -> None:
    with another_run(path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()

        assert owner(path) is None
        with held("run", Deadline.after(0), silent, path):
            pass


def test_a_failed_run_gives_the_lock_back(path: Path) -> None:
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


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'"x"', b'{"pid": "x"}', b"\xff\xfe", b"{}", b"null"])
def test_a_holder_that_the_file_does_not_name_is_unknown(path: Path, text: bytes) -> None:
    with another_run(path) as other:
        path.write_bytes(text)
        program = Path(f"/proc/{other.pid}/comm").read_text().strip()
        who = owner(path)

        with pytest.raises(LockedError) as caught, held("run", Deadline.after(0), silent, path):
            pytest.fail("two runs at once")

    assert who == Owner(other=other.pid)
    name = f"process {other.pid} ({program}), which does not call itself a run of pyinfra-solo"
    assert str(caught.value) == f"The run lock {path} is held by {name}. lslocks(8) shows it; end it."


def test_a_holder_that_is_not_ours_is_no_run_that_was_killed(path: Path) -> None:
    """The file still names the run that was killed: it said `run 0, which has held the lock for 0 s`."""
    with another_run(path) as other:
        other.kill()
        other.wait()
    assert f'"pid": {other.pid}' in path.read_text()
    with subprocess.Popen(
        ["flock", str(path), "sh", "-c", "echo held; read x"], stdin=PIPE, stdout=PIPE
    ) as foreign:
        assert foreign.stdout
        assert foreign.stdout.readline() == b"held\n"
        who = owner(path)
        with pytest.raises(LockedError) as caught, held("run", Deadline.after(0), silent, path):
            pytest.fail("two runs at once")
        foreign.communicate(b"\n")

    assert who == Owner(other=foreign.pid)
    assert f"{path} is held by process {foreign.pid} (flock), which does not call itself a run" in str(
        caught.value
    )


def test_a_killed_run_whose_executor_still_works_is_named(path: Path) -> None:
    """The executor holds its descriptor, and the kernel still knows who took the lock."""
    script = HOLD.replace(
        "    print", "    child = os.fork()\n    if child == 0: time.sleep(60)\n    print(child)\n    print"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"import os, time\n{script}", str(path)],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, stdin=PIPE, stdout=PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        child = int(process.stdout.readline())
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        who = owner(path)
        os.kill(child, signal.SIGKILL)

    assert who is not None
    assert (who.pid, who.station, who.other) == (process.pid, "converge", None)


@pytest.mark.parametrize("station", ["gate open: " + "why? " * 5000, "\U0001f600" * 5000, "\udcff", '"\n'])
def test_a_station_may_have_any_name(path: Path, station: str) -> None:
    """`gate open --reason TEXT` is a run by the name of its reason."""
    with held(station, Deadline.after(0), silent, path) as lock:
        first = owner(path)
        lock.at("judge")
        second = owner(path)

    assert first is not None
    assert second is not None
    assert first.station == station[:200]
    assert (second.pid, second.station) == (os.getpid(), "judge")


def test_flock_is_tried_twice_although_the_time_is_over(path: Path) -> None:
    """`owner` takes the lock for a moment, which must not fail a run that does not wait."""
    path.parent.mkdir()
    with path.open("w") as mine, path.open() as other:
        assert flock(other.fileno(), 0)
        calls: list[str] = []

        def waiting() -> None:
            calls.append("waiting")
            other.close()

        assert flock(mine.fileno(), 0, waiting)
    assert calls == ["waiting"]


def test_flock_that_stays_taken_is_false_when_the_time_is_over(path: Path) -> None:
    path.parent.mkdir()
    with path.open("w") as mine, path.open() as other:
        assert flock(other.fileno(), 0)
        began = time.monotonic()

        assert not flock(mine.fileno(), began + 0.3)
        assert time.monotonic() - began >= 0.3


def test_the_owner_s_name_is_never_read_by_half(path: Path) -> None:
    done = threading.Event()
    with held("start", Deadline.after(0), silent, path) as lock:

        def change() -> None:
            while not done.is_set():
                lock.at("a station with a long name")
                lock.at("short")

        changing = threading.Thread(target=change)
        changing.start()
        seen = [owner(path) for _ in range(2000)]
        done.set()
        changing.join()

    assert {who.pid if who else None for who in seen} == {os.getpid()}
