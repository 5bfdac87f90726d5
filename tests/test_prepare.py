"""A runtime is what its lock file says, whole and on disk, or it is not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyinfra_solo import durable, lockfile
from pyinfra_solo.errors import DataError, DeadlineError, SourceError, TrustError
from pyinfra_solo.prepare import Runtime, prepare, runtime_key
from tests.here import ENGINE, lives, stamps
from tests.wheels import ZERO, lock, uv, wheel

PYTHON = "/usr/bin/python3"
NOBODY = "http://127.0.0.1:9/simple"
"""Where no index is: the port is discard's."""


class House:
    """A folder of wheels, a lock file, and where runtimes are built from them."""

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        self.lock = folder / "requirements.lock"
        self.into = folder / "state/runtimes"
        self.said: list[str] = []
        alpha, beta = wheel(self.wheels, "alpha"), wheel(self.wheels, "beta", "2.0")
        self.ask(("alpha", "1.0", alpha), ("beta", "2.0", beta))

    def ask(self, *pins: tuple[str, str, str]) -> None:
        """The lock file has these pins."""
        lock(self.lock, *pins)

    def prepare(
        self,
        *homes: Path,
        tool: Path | None = None,
        index: str = NOBODY,
        timeout: float = 60,
        urls: tuple[str, ...] = (),
    ) -> Runtime:
        return prepare(
            self.lock, homes=[*homes, self.into], into=self.into, uv=tool or uv(), wheels=[self.wheels, *urls],
            index=index, python=PYTHON, timeout=timeout, log=self.said.append,
        )  # fmt: skip

    def names(self) -> set[str]:
        """What is in the folder of runtimes."""
        return {path.name for path in self.into.iterdir() if path.name != ".lock"}


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def prints(runtime: Runtime, code: str) -> str:
    """What Python code prints in a runtime."""
    done = subprocess.run(
        [runtime.python, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def test_a_runtime_is_made_without_a_network_from_wheels_at_hand(house: House) -> None:
    runtime = house.prepare()
    assert runtime.made == "offline"
    assert runtime.python == house.into / runtime.key / "bin/python"
    assert prints(runtime, "import alpha, beta; alpha.main(); beta.main()") == "1.0\n2.0"
    assert durable.is_complete(house.into / runtime.key)
    assert house.names() == {runtime.key}


def test_a_runtime_works_where_it_was_moved_to_commands_and_bytecode_included(house: House) -> None:
    runtime = house.prepare()
    moved = house.into.parent / "elsewhere"
    (house.into / runtime.key).rename(moved)
    done = subprocess.run([moved / "bin/alpha"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "1.0\n"
    assert list(moved.glob("lib/python3*/site-packages/alpha/__pycache__/*.pyc"))
    written = [path for path in (moved / "bin").iterdir() if path.is_file() and not path.is_symlink()]
    assert not [path.name for path in written if durable.BUILDING.encode() in path.read_bytes()]


def test_a_runtime_that_is_there_is_found_without_starting_or_writing_anything(house: House) -> None:
    first = house.prepare()
    before = stamps(house.into)
    found = house.prepare(tool=Path("/nonexistent/uv"), timeout=0)
    assert (found.key, found.python, found.made) == (first.key, first.python, "found")
    after = stamps(house.into)
    marker = f"{first.key}/{durable.MARKER}"
    before.pop(marker), after.pop(marker)  # its time says when the runtime was last used
    assert after == before
    assert found.seconds < 0.1


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
def test_a_runtime_that_cannot_be_believed_is_made_again(house: House, harm: str) -> None:
    runtime = house.prepare()
    module = next((house.into / runtime.key).glob("lib/python3*/site-packages/alpha/__init__.py"))
    module.write_text("")
    gone = house.into / runtime.key / durable.MARKER if harm == "no marker" else runtime.python
    gone.unlink()
    again = house.prepare()
    assert (again.key, again.made) == (runtime.key, "offline")
    assert prints(again, "import alpha; alpha.main()") == "1.0"


def test_a_wheel_that_is_not_the_locked_one_is_refused_by_name(house: House) -> None:
    house.ask(("alpha", "1.0", ZERO))
    with pytest.raises(TrustError, match=r"^alpha==1\.0 is not what requirements\.lock was locked to"):
        house.prepare()
    assert house.names() == set()


def test_a_wheel_that_was_changed_is_refused_also_when_it_was_good_before(house: House) -> None:
    house.prepare()
    pins = lockfile.pins(house.lock.read_bytes(), house.lock)
    assert [pin.name for pin in pins] == ["alpha", "beta"]
    shutil.rmtree(house.into.parent)
    wheel(house.wheels, "alpha", body="import os\n")
    with pytest.raises(TrustError, match="alpha"):
        house.prepare()


def test_a_wheel_that_nobody_has_is_named(house: House) -> None:
    house.ask(("gamma", "3.0", ZERO))
    empty = house.into.parent.parent / "index"
    (empty / "gamma").mkdir(parents=True)
    (empty / "gamma/index.html").write_text("<!DOCTYPE html>")
    with pytest.raises(SourceError, match="gamma"):
        house.prepare(index=empty.as_uri())
    assert house.names() == set()


def test_an_index_that_does_not_answer_is_a_source_that_may_come_back(house: House) -> None:
    house.ask(("gamma", "3.0", ZERO))
    with pytest.raises(SourceError, match="A wheel cannot be had") as raised:
        house.prepare()
    assert raised.value.retry
    assert "asking the network" in house.said[-1]


def test_a_wheel_that_is_not_at_hand_comes_from_the_index(house: House) -> None:
    index = house.into.parent.parent / "index"
    (index / "alpha").mkdir(parents=True)
    name = "alpha-1.0-py3-none-any.whl"
    (house.wheels / name).rename(index / "alpha" / name)
    (index / "alpha/index.html").write_text(f'<!DOCTYPE html><a href="{name}">{name}</a>')
    runtime = house.prepare(index=index.as_uri())
    assert prints(runtime, "import alpha; alpha.main()") == "1.0"


def test_the_next_runtime_takes_from_the_cache_what_the_last_one_had(house: House) -> None:
    house.prepare()
    shutil.rmtree(house.into)
    assert durable.is_complete(house.into.parent / "uv-cache")
    assert house.prepare().made == "offline"


def test_a_cache_that_a_killed_run_left_is_not_believed(house: House) -> None:
    """uv does not sync it: after a power cut it holds empty files, which uv would install."""
    house.prepare()
    cache = house.into.parent / "uv-cache"
    durable.doubt(cache)
    for path in cache.rglob("alpha/__init__.py"):
        path.write_text("")
    shutil.rmtree(house.into)
    assert prints(house.prepare(), "import alpha; alpha.main()") == "1.0"


SLOW = """\
#!/bin/sh
case $1 in venv) exec {uv} "$@" ;; esac
sleep 300 & echo $! >{folder}/child
wait
"""


def slow_uv(folder: Path) -> Path:
    """A uv whose installations never end, and have a child."""
    path = folder / "slow-uv"
    path.write_text(SLOW.format(uv=uv(), folder=folder))
    path.chmod(0o755)
    return path


def gone(pid: int) -> bool:
    """Whether a process ends within a second."""
    until = time.monotonic() + 1
    while lives(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not lives(pid)


def test_what_takes_too_long_is_ended_with_all_that_it_started(house: House, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"`uv pip sync` was ended after [12] s"):
        house.prepare(tool=slow_uv(tmp_path), timeout=1.5)
    assert time.monotonic() - started < 10
    assert gone(int((tmp_path / "child").read_text()))
    assert house.names() == set()


def test_a_run_killed_half_way_leaves_nothing_believed_and_the_next_one_repairs_it(
    house: House, tmp_path: Path
) -> None:
    command: list[str | Path] = [
        PYTHON,
        "-m",
        "pyinfra_solo.prepare",
        "--lock",
        house.lock,
        "--into",
        house.into,
    ]
    process = subprocess.Popen(
        [*command, "--uv", slow_uv(tmp_path), "--wheels", house.wheels],
        env={**os.environ, "PYTHONPATH": str(ENGINE)},
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert lives(process.pid)
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert [name[:10] for name in house.names()] == [durable.BUILDING]
    runtime = house.prepare()
    assert house.names() == {runtime.key}
    assert prints(runtime, "import beta; beta.main()") == "2.0"


def test_two_runs_at_once_build_it_once(house: House) -> None:
    command: list[str | Path] = [
        PYTHON,
        "-m",
        "pyinfra_solo.prepare",
        "--lock",
        house.lock,
        "--into",
        house.into,
    ]
    both = [
        subprocess.Popen(
            [*command, "--uv", uv(), "--wheels", house.wheels],
            env={**os.environ, "PYTHONPATH": str(ENGINE)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len({out for out, _ in said}) == 1
    assert sorted("found" in err for _, err in said) == [False, True]


def test_old_runtimes_go_but_never_the_one_in_use_or_the_image_s(house: House) -> None:
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no package"),
        ("alpha==1.0\n", "line 1: alpha has no hash"),
        ("# a comment\n\nalpha>=1.0 --hash=sha256:" + ZERO, "line 3: 'alpha>=1.0' is not"),
        ("--index-url http://evil.example\nalpha==1.0 --hash=sha256:" + ZERO, "line 1: "),
        ("alpha==1.0 \\\n  --find-links=/tmp --hash=sha256:" + ZERO, "line 1: "),
        ("alpha @ http://evil.example/alpha.whl --hash=sha256:" + ZERO, "line 1: "),
        ("-r other.txt", "line 1: '-r other.txt' is not"),
        ("alpha==1.0 --hash=md5:00", "line 1: "),
        ("alpha==1.0 \\\n    --hash=sha256:" + ZERO + " \\", "line 1: the file ends within a line"),
    ],
)
def test_a_lock_file_that_pins_not_everything_is_refused_with_its_line(
    house: House, text: str, said: str
) -> None:
    house.lock.write_text(text)
    with pytest.raises(DataError) as raised:
        house.prepare()
    assert str(house.lock) in str(raised.value)
    assert said in str(raised.value)
    assert not house.into.exists()


def test_a_lock_file_that_is_not_there_or_not_text_is_refused(house: House) -> None:
    house.lock.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        house.prepare()
    house.lock.unlink()
    with pytest.raises(DataError, match=r"There is no .*Commit one"):
        house.prepare()


def test_markers_extras_and_comments_are_understood() -> None:
    content = f"""\
# made by uv
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:{ZERO} \\
    --hash=sha256:{ZERO}
    # via cryptography
moto[ec2, server]==5.2.5 --hash=sha512:{ZERO}{ZERO}
""".encode()
    pins = lockfile.pins(content, Path("requirements.lock"))
    assert [(pin.name, pin.version, pin.hashes, pin.line) for pin in pins] == [
        ("cffi", "2.1.1", 2, 2),
        ("moto", "5.2.5", 1, 6),
    ]


def test_the_callers_environment_does_not_reach_uv(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/nonexistent")
    monkeypatch.setenv("UV_CACHE_DIR", "/nonexistent")
    monkeypatch.setenv("UV_NO_BINARY", "1")
    monkeypatch.setenv("UV_PYTHON", "3.2")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    runtime = house.prepare()
    assert list((house.into / runtime.key).glob("lib/python3*/site-packages/alpha/__pycache__/*.pyc"))


def test_a_machine_without_uv_is_told_what_to_run(house: House) -> None:
    with pytest.raises(SourceError, match=r"/nonexistent/uv cannot be run: .* Run bootstrap/install\.sh\."):
        house.prepare(tool=Path("/nonexistent/uv"))


@pytest.mark.parametrize(("sha", "status"), [("right", 0), (ZERO, 11)])
def test_as_a_command_it_prints_the_path_and_ends_with_the_errors_status(
    house: House, sha: str, status: int
) -> None:
    house.ask(("alpha", "1.0", wheel(house.wheels, "alpha") if sha == "right" else sha))
    done = subprocess.run(
        [PYTHON, "-m", "pyinfra_solo.prepare", "--lock", house.lock, "--into", house.into, "--uv", uv(),
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
    code = "import sys, pyinfra_solo.prepare; print(*sorted({m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(ENGINE)}, capture_output=True, text=True,
        timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["__main__", "pyinfra_solo"]
