"""A child ends in time, with all that belongs to it and nothing else, and its output is bounded."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.system import processes
from pyinfra_solo.system.processes import Finished, TimedOutError, run
from tests.support.programs import is_alive


def started(script: str, **options: bool | int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def printed_number(process: subprocess.Popen[bytes]) -> int:
    """The number that a script printed: by then it is where the test wants it."""
    assert process.stdout
    with process.stdout:
        return int(process.stdout.readline())


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def test_ending_a_session_ends_its_grandchildren_and_spares_who_left_it() -> None:
    """A daemon that called setsid(2) has left on purpose."""
    process = started("setsid sh -c 'echo $$; exec sleep 60' & sleep 60 & wait", start_new_session=True)
    daemon = printed_number(process)
    try:
        processes.end_session(process.pid)
        process.wait()
        assert processes.members(process.pid) == []
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_what_heeds_sigterm_may_clean_up_first(tmp_path: Path) -> None:
    script = f"trap 'echo clean > {tmp_path}/cleaned; exit' TERM; echo $$; while :; do sleep 0.05; done"
    process = started(script, start_new_session=True)
    printed_number(process)
    processes.end_session(process.pid)
    process.wait()
    assert (tmp_path / "cleaned").read_text() == "clean\n"


def test_a_stopped_process_is_ended_too() -> None:
    process = started("echo $$; kill -STOP $$; sleep 60", start_new_session=True)
    printed_number(process)
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
    survivor = printed_number(process)
    processes.end_group(process.pid, grace=2)
    process.wait()
    assert until(lambda: not is_alive(survivor))


NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives up an account")


def ran(script: str, **options: Any) -> Finished:
    return run(["sh", "-c", script], **{"timeout": 60, **options})


def timed_out(script: str, **options: Any) -> Finished:
    with pytest.raises(TimedOutError, match=r"took longer than .* s and was ended") as caught:
        ran(script, **{"timeout": 0.5, "grace": 0.2, **options})
    return caught.value.finished


def descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def asked(program: str, **options: Any) -> Finished:
    """Run a Python program that tries each line of `program`, and writes how it went."""
    lines = [line.strip() for line in program.strip().splitlines()]
    tries = (
        f"import os\nfor line in {lines!r}:\n"
        "    try:\n        exec(line)\n    except OSError as error:\n        os.write(1, f'{error.strerror}\\n'.encode())\n"
        "    else:\n        os.write(1, b'done\\n')\n"
    )
    return run([str(Path(sys.executable).resolve()), "-c", tries], timeout=60, **options)


def test_a_child_s_status_and_output_are_kept_apart() -> None:
    expected = Finished(status=3, stdout=b"out\n", stderr=b"err\n", cut=False)
    assert ran("echo out; echo err >&2; exit 3") == expected


def test_merged_output_is_in_the_order_of_writing() -> None:
    expected = Finished(status=0, stdout=b"1\n2\n3\n", stderr=b"", cut=False)
    assert ran("echo 1; echo 2 >&2; echo 3", merge=True) == expected


def test_a_child_ended_by_a_signal_has_its_negative_number() -> None:
    assert ran("kill -9 $$").status == -signal.SIGKILL


def test_a_child_gets_the_input_environment_folder_and_umask(tmp_path: Path) -> None:
    done = ran(
        "cat; echo $A; pwd; umask", stdin=b"\xff\n", environment={"A": "b"}, folder=tmp_path, umask=0o27
    )

    assert done.stdout == b"\xff\nb\n%s\n0027\n" % bytes(tmp_path)
    assert ran('cat; pwd; test -n "$HOME"', environment=None).stdout == b"/\n"


def test_a_nul_in_a_word_is_a_value_error() -> None:
    """A shell would leave it out, and run another command."""
    with pytest.raises(ValueError, match="null byte"):
        run(["echo", "a\0b"], timeout=60)


def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        run(["no-such-program"], timeout=60)


STUBBORN = "trap '' TERM; (while :; do sleep 0.05; done) & echo $!; while :; do sleep 0.05; done"


@pytest.mark.parametrize("session", [True, False], ids=["session", "group"])
def test_a_time_out_ends_what_ignores_sigterm(session: bool) -> None:
    finished = timed_out(STUBBORN, session=session)

    assert finished.status == -signal.SIGKILL
    assert until(lambda: not is_alive(int(finished.stdout)))


def test_a_time_out_ends_every_group_of_a_session() -> None:
    finished = timed_out("bash -c 'set -m; sleep 60 & echo $!; wait'")

    assert until(lambda: not is_alive(int(finished.stdout)))


def test_a_group_stays_in_the_caller_s_session() -> None:
    done = ran("echo $$; cut -d' ' -f5,6 /proc/$$/stat", session=False)
    pid, group, session = map(int, done.stdout.split())

    assert (group, session) == (pid, os.getsid(0))


def test_without_pidfd_open_a_time_out_and_an_end_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 5.3, and a container whose seccomp filter refuses the call."""

    def refused(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted", str(pid))

    monkeypatch.setattr(os, "pidfd_open", refused)

    assert ran("sleep 0.1; echo out").stdout == b"out\n"
    assert timed_out("echo out; sleep 60").stdout == b"out\n"


def test_an_error_meanwhile_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An alarm or a signal's error may come from anywhere."""

    def raises(*_arguments: object) -> bool:
        assert until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
        raise ZeroDivisionError

    monkeypatch.setattr(processes, "_wait", raises)
    with pytest.raises(ZeroDivisionError):
        ran(f"echo $$ > {tmp_path}/pid; exec sleep 60")

    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_daemon_that_keeps_its_output_open_holds_up_nobody(tmp_path: Path) -> None:
    go, wrote = tmp_path / "go", tmp_path / "wrote"
    daemon = f"(until test -e {go}; do sleep 0.02; done; echo late && echo late >&2 && touch {wrote})"
    done = ran(f"echo early; {daemon} & :")

    assert done.stdout == b"early\n"
    go.touch()
    assert until(wrote.exists)


@pytest.mark.parametrize("size", [999, 1000, 1001, 3_000_000])
@pytest.mark.parametrize("place", ["", ">&2"])
def test_output_beyond_the_limit_is_cut(size: int, place: str) -> None:
    done = ran(f"head -c {size} /dev/zero {place}", max_output=1000)

    assert len(done.stdout + done.stderr) == min(size, 1000)
    assert done.cut is (size > 1000)
    assert done.status == 0


def test_endless_output_does_not_fill_the_disk() -> None:
    """Each time the child waits until its file has shrunk. In `$(…)` descriptor 1 is a pipe."""
    shrunk = "while test $(stat -Lc %s /proc/self/fd/3) -gt 1000; do sleep 0.01; done"
    done = ran(f"exec 3>&1; for _ in 1 2 3; do head -c 1000000 /dev/zero; {shrunk}; done", max_output=1000)

    assert (done.status, done.cut, len(done.stdout)) == (0, True, 1000)


def test_a_child_that_is_being_ended_does_not_fill_the_disk() -> None:
    shrunk = "while test $(stat -Lc %s /proc/self/fd/3) -gt 1000; do sleep 0.01; done"
    script = f"exec 3>&1; trap '' TERM; sleep 0.6; head -c 1000000 /dev/zero; {shrunk}; echo shrunk >&2"

    assert timed_out(script, max_output=1000, grace=10).stderr == b"shrunk\n"


def test_output_leaves_no_file_and_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = descriptors()
    ran(f"ls -A {tmp_path}; echo more", stdin=b"text")
    timed_out("sleep 60")

    assert ran(f"ls -A {tmp_path}").stdout == b""
    assert descriptors() == before


def test_a_child_can_neither_read_its_output_nor_write_its_input() -> None:
    done = asked("os.read(1, 1)\n os.read(2, 1)\n os.write(0, b'x')", stdin=b"text")

    assert done.stdout == b"Bad file descriptor\n" * 3


@as_root
def test_an_account_that_a_child_becomes_cannot_open_its_files() -> None:
    """`release` and role commands drop to accounts that may run foreign code."""
    done = asked(
        f"""
        os.setgroups([])
        os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
        os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
        os.open('/proc/self/fd/1', os.O_RDONLY)
        os.open('/proc/self/fd/1', os.O_WRONLY | os.O_TRUNC)
        os.open('/proc/self/fd/2', os.O_RDWR)
        os.open('/proc/self/fd/0', os.O_WRONLY)
        os.truncate('/proc/self/fd/1', 0)
        """,
        stdin=b"text",
    )

    assert done.stdout == b"done\n" * 3 + b"Permission denied\n" * 5


def test_no_descriptor_is_inherited_but_those_passed() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    listing = "ls /proc/self/fd | tr '\\n' ' '"
    try:
        assert ran(listing).stdout == b"0 1 2 3 "  # 3 is the folder that ls reads
        assert f" {reader} " in ran(listing, pass_fds=[reader]).stdout.decode()
    finally:
        os.close(reader)
        os.close(writer)
