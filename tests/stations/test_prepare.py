"""A runtime is what its lock file says, whole and on disk, or it is not there."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from pyinfra_solo.errors import DeadlineError
from pyinfra_solo.stations.prepare import runtime_key
from pyinfra_solo.system import durable
from tests.support.files import stamps
from tests.support.machine import ENGINE
from tests.support.programs import is_alive
from tests.support.wheels import NOBODY, PYTHON, ZERO, House, prints, slow_uv, uv, wheel


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.system")
"""Events of Python's audit table by which a process starts another one."""


@contextmanager
def started_processes() -> Iterator[list[str]]:
    """Record the processes that this one starts inside the block."""
    found, recording = [], True

    def note(event: str, words: tuple[object, ...]) -> None:
        if recording and event in STARTS:
            found.append(f"{event} {words}")

    sys.addaudithook(note)  # for good: no hook can be removed
    yield found
    recording = False


def test_a_runtime_is_built_from_local_wheels_without_a_network(house: House) -> None:
    runtime = house.prepare()
    assert runtime.made == "offline"
    assert runtime.python == house.into / runtime.key / "bin/python"
    assert prints(runtime, "import alpha, beta; alpha.main(); beta.main()") == "1.0\n2.0"
    assert durable.is_complete(house.into / runtime.key)
    assert house.names() == {runtime.key}
    assert house.lines == ["building the runtime: 2 packages from requirements.lock"]


def test_its_lock_file_is_for_root_alone(house: House) -> None:
    """A descriptor that can only read is enough for flock(2) to hold up every build."""
    house.into.mkdir(parents=True)
    (house.into / ".lock").touch(0o644)
    house.prepare()
    assert (house.into / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_held_is_given_up_in_time(house: House) -> None:
    house.into.mkdir(parents=True)
    with (house.into / ".lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(DeadlineError, match="Another process was still building a runtime"):
            house.prepare(timeout=0.2)


def test_a_moved_runtime_works_with_its_commands_and_bytecode(house: House) -> None:
    runtime = house.prepare()
    moved = house.into.parent / "elsewhere"
    (house.into / runtime.key).rename(moved)
    done = subprocess.run([moved / "bin/alpha"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "1.0\n"
    assert list(moved.glob("lib/python3*/site-packages/alpha/__pycache__/*.pyc"))
    written = [path for path in (moved / "bin").iterdir() if path.is_file() and not path.is_symlink()]
    assert not [path.name for path in written if durable.BUILDING.encode() in path.read_bytes()]


def test_a_complete_runtime_is_found_without_a_process_or_a_write(house: House) -> None:
    with started_processes() as started:
        first = house.prepare()
    assert started, "building one starts processes"
    before = stamps(house.into)
    with started_processes() as started:
        found = house.prepare(tool=Path("/nonexistent/uv"), timeout=0)
    assert started == []
    assert (found.key, found.python, found.made) == (first.key, first.python, "found")
    after = stamps(house.into)
    marker = f"{first.key}/{durable.MARKER}"
    before.pop(marker), after.pop(marker)  # its time says when the runtime was last used
    assert after == before


def test_the_runtime_of_the_image_is_taken_before_one_is_built(house: House) -> None:
    made = house.prepare()
    image = house.into.parent / "image"
    house.into.rename(image)
    found = house.prepare(image, tool=Path("/nonexistent/uv"))
    assert found.python == image / made.key / "bin/python"
    assert found.made == "found"
    assert not house.into.exists()


def test_another_lock_file_and_another_python_are_another_runtime() -> None:
    keys = {
        runtime_key(b"a==1", PYTHON),
        runtime_key(b"a==2", PYTHON),
        runtime_key(b"a==1", "/opt/python3.12/bin/python3"),
    }
    assert len(keys) == 3
    assert {len(key) for key in keys} == {16}
    assert runtime_key(b"a==1", str(Path(PYTHON).resolve())) in keys


@pytest.mark.parametrize("harm", ["no marker", "no interpreter"])
def test_a_runtime_that_is_not_complete_is_built_anew(house: House, harm: str) -> None:
    runtime = house.prepare()
    module = next((house.into / runtime.key).glob("lib/python3*/site-packages/alpha/__init__.py"))
    module.write_text("")
    gone = house.into / runtime.key / durable.MARKER if harm == "no marker" else runtime.python
    gone.unlink()
    again = house.prepare()
    assert (again.key, again.made) == (runtime.key, "offline")
    assert prints(again, "import alpha; alpha.main()") == "1.0"


def test_the_next_runtime_takes_from_the_cache_what_the_last_one_had(house: House) -> None:
    house.prepare()
    shutil.rmtree(house.into)
    assert durable.is_complete(house.into.parent / "uv-cache")
    assert house.prepare().made == "offline"


def test_a_cache_that_a_killed_run_left_is_not_used(house: House) -> None:
    """uv does not sync it: after a power cut it holds empty files, which uv would install."""
    house.prepare()
    cache = house.into.parent / "uv-cache"
    durable.invalidate(cache)
    for path in cache.rglob("alpha/__init__.py"):
        path.write_text("")
    shutil.rmtree(house.into)
    assert prints(house.prepare(), "import alpha; alpha.main()") == "1.0"


def test_a_run_killed_half_way_is_repaired_by_the_next(house: House, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*house.command, "--uv", slow_uv(tmp_path), "--wheels", house.wheels],
        env={**os.environ, "PYTHONPATH": str(ENGINE)},
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert is_alive(process.pid)
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert [name[:10] for name in house.names()] == [durable.BUILDING]
    runtime = house.prepare()
    assert house.names() == {runtime.key}
    assert prints(runtime, "import beta; beta.main()") == "2.0"


def test_two_runs_at_once_build_it_once(house: House) -> None:
    both = [
        subprocess.Popen(
            [*house.command, "--uv", uv(), "--wheels", house.wheels],
            env={**os.environ, "PYTHONPATH": str(ENGINE)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len({out for out, _ in said}) == 1
    assert sorted("found" in err for _, err in said) == [False, True]


def test_old_runtimes_go_but_never_one_in_use_or_the_images(house: House) -> None:
    keys = []
    for number in range(4):
        sha = wheel(house.wheels, "gamma", f"{number}.0")
        house.ask(("gamma", f"{number}.0", sha))
        runtime = house.prepare()
        keys.append(runtime.key)
        os.utime(house.into / runtime.key / durable.MARKER, (number, number))
        if number == 0:
            user = subprocess.Popen([runtime.python, "-c", "import time; time.sleep(60)"])
        if number == 1:
            (house.into.parent / "runtime").symlink_to(house.into / runtime.key)
    try:
        assert house.names() == set(keys), "0 runs, 1 is linked, 2 and 3 are the newest"
    finally:
        user.kill()
        user.wait()
    house.ask(("alpha", "1.0", wheel(house.wheels, "alpha")))
    last = house.prepare().key
    assert house.names() == {keys[1], keys[3], last}


@pytest.mark.parametrize("who", ["another account's python", "another program", "a later word"])
def test_a_runtime_is_not_kept_by_its_name_in_a_command_line(house: House, who: str) -> None:
    """Any account could fill the disk with runtimes; argv[0] of su, which runs as root, is its choice too."""
    first = house.prepare()
    python = str(house.into / first.key / "bin/python")
    sleeps = ["-I", "-S", "-c", "import time; time.sleep(60)"]
    words, options = {
        "another account's python": ([python, *sleeps], {"executable": PYTHON, "user": 65534}),
        "another program": ([python, "60"], {"executable": "/bin/sleep"}),
        "a later word": ([PYTHON, *sleeps, python], {}),
    }[who]
    pretender = subprocess.Popen(words, **cast("dict[str, Any]", options))
    try:
        for number in (1, 2):
            house.ask(("gamma", f"{number}.0", wheel(house.wheels, "gamma", f"{number}.0")))
            house.prepare()
        assert is_alive(pretender.pid)
        assert first.key not in house.names()
    finally:
        pretender.kill()
        pretender.wait()


@pytest.mark.parametrize(("sha", "status"), [("right", 0), (ZERO, 11)])
def test_the_command_prints_the_path_or_ends_with_the_errors_status(
    house: House, sha: str, status: int
) -> None:
    house.ask(("alpha", "1.0", wheel(house.wheels, "alpha") if sha == "right" else sha))
    done = subprocess.run(
        [*house.command, "--uv", uv(),
         "--wheels", house.wheels, "--index", NOBODY],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status
    if status:
        assert done.stdout == ""
        assert "alpha==1.0 is not what" in done.stderr
    else:
        assert done.stdout == f"{house.into / runtime_key(house.lock.read_bytes(), PYTHON)}\n"


def test_it_needs_nothing_but_the_standard_library() -> None:
    """install.sh runs it before any dependency is there: -S leaves site-packages out."""
    code = "import sys, pyinfra_solo.stations.prepare; print(*sorted({m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(ENGINE)}, capture_output=True, text=True,
        timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["__main__", "pyinfra_solo"]
