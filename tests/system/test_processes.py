"""Ending all that belongs to a child, and nothing else."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from pyinfra_solo.system import processes
from tests.support.programs import is_alive


def started(script: str, **options: bool | int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def told(process: subprocess.Popen[bytes]) -> int:
    """The number that a script printed: by then it is where the test wants it."""
    assert process.stdout
    with process.stdout:
        return int(process.stdout.readline())


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_a_session_s_members_are_found_in_every_group() -> None:
    process = started(
        "setsid sleep 60 & bash -c 'set -m; sleep 60 & echo $!; wait' & wait", start_new_session=True
    )
    grandchild = told(process)
    try:
        found = processes.members(process.pid)
        assert {process.pid, grandchild} <= set(found)
        assert all(os.getsid(pid) == process.pid for pid in found)
        assert os.getpgid(grandchild) != process.pid
    finally:
        away = [int(word) for word in _sleepers_below(process.pid)]
        processes.end_session(process.pid)
        process.wait()
        for pid in away:
            os.kill(pid, signal.SIGKILL)


def _sleepers_below(pid: int) -> list[str]:
    """The children of `pid` that are sessions of their own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if os.getsid(int(child)) == int(child)]


def test_ending_a_session_ends_its_grandchildren_and_spares_who_left_it() -> None:
    """A daemon that called setsid(2) has left on purpose."""
    process = started("setsid sh -c 'echo $$; exec sleep 60' & sleep 60 & wait", start_new_session=True)
    daemon = told(process)
    try:
        processes.end_session(process.pid)
        process.wait()
        assert processes.members(process.pid) == []
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_what_ignores_sigterm_is_killed() -> None:
    process = started("trap '' TERM; echo $$; while :; do sleep 0.05; done", start_new_session=True)
    told(process)
    processes.end_session(process.pid, grace=0.2)
    assert process.wait() == -signal.SIGKILL


def test_what_heeds_sigterm_may_clean_up_first(tmp_path: Path) -> None:
    script = f"trap 'echo clean > {tmp_path}/said; exit' TERM; echo $$; while :; do sleep 0.05; done"
    process = started(script, start_new_session=True)
    told(process)
    processes.end_session(process.pid)
    process.wait()
    assert (tmp_path / "said").read_text() == "clean\n"


def test_a_stopped_process_is_ended_too() -> None:
    process = started("echo $$; kill -STOP $$; sleep 60", start_new_session=True)
    told(process)
    processes.end_session(process.pid, grace=0.2)
    process.wait()
    assert processes.members(process.pid) == []


def test_ending_a_session_that_has_ended_is_nothing() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    processes.end_session(process.pid)


def test_ending_a_group_ends_what_outlived_its_leader() -> None:
    process = started(
        "(trap '' TERM; sh -c 'echo $PPID'; while :; do sleep 0.05; done) & wait", process_group=0
    )
    survivor = told(process)
    processes.end_group(process.pid, grace=2)
    process.wait()
    assert until(lambda: not is_alive(survivor))
