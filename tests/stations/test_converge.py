"""The parent of a converge: it hears the child out, ends it in time, and names what went wrong."""

import io
import os
import signal
import threading
from pathlib import Path

import pytest

from pyinfra_solo.errors import ConvergeError, DataError, DeadlineError
from pyinfra_solo.stations.converge import engine_of
from tests.support.line import converged, new_run
from tests.support.machine import ENGINE, use_root
from tests.support.ops_repo import ops, write
from tests.support.programs import is_alive, wait_for


@pytest.fixture(autouse=True)
def _below_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_root(tmp_path / "machine", monkeypatch)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def tree(target: Path, operations: str) -> Path:
    return write(target.parent / "tree", ops(operations, target))


def test_the_deadline_ends_the_session_with_all_that_is_in_it(target: Path) -> None:
    """A command's grandchild in a group of its own, too."""
    root = tree(
        target,
        r"""
        server.shell(
            name="it takes long",
            commands=f"bash -c 'set -m; sleep 60 & echo $! > {data.target}/grandchild; wait' & echo $$ > {data.target}/child; wait",
        )
        """,
    )
    with pytest.raises(
        DeadlineError, match=r"while the operation 'site \| it takes long' was running"
    ) as raised:
        converged(root, run=new_run(seconds=3))
    assert raised.value.exit_code == 22
    assert not any(is_alive(int((target / name).read_text())) for name in ("child", "grandchild"))


def test_a_child_that_is_killed_is_a_failure_that_names_its_operation(target: Path) -> None:
    """The kernel does so when memory runs out."""
    root = tree(
        target, "server.shell(name='it takes long', commands=f'echo $PPID > {data.target}/pid; sleep 60')"
    )

    def kill() -> None:
        file = target / "pid"
        wait_for("the operation", lambda: file.exists() and file.read_text() != "", timeout=30)
        os.kill(int(file.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ConvergeError) as raised:
        converged(root)
    killer.join()
    assert str(raised.value) == (
        "The converge ended with signal 9 while the operation 'site | it takes long' was running. "
        "Its last words are in the journal."
    )


def test_a_role_that_ends_the_process_is_a_failure(target: Path) -> None:
    """Exit status 0 without the last event is not a converge."""
    with pytest.raises(ConvergeError, match="ended with exit status 0 while starting pyinfra"):
        converged(tree(target, "import os\nos._exit(0)"))


def test_each_operation_is_said_aloud_as_it_ends(target: Path) -> None:
    heard = io.StringIO()
    root = tree(
        target, "server.shell(name='one', commands='true')\nfiles.directory(name='two', path=data.target)"
    )
    converged(root, run=new_run(output=heard))
    said = [line.split(" in ")[0] for line in heard.getvalue().splitlines()]
    assert said[:2] == ["converge: 1/2 site | one: changed", "converge: 2/2 site | two: ok"]


def test_a_full_disk_for_events_stops_nothing(target: Path, tmp_path: Path) -> None:
    (tmp_path / "machine/var/lib/pyinfra-solo/reports").rmdir()
    assert converged(tree(target, "server.shell(name='one', commands='true')")).changed == 1


def test_the_environment_of_python_does_not_leak_into_a_converge(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    converged(tree(target, "server.shell(name='one', commands=f'env > {data.target}/env')"))
    names = {line.partition("=")[0] for line in (target / "env").read_text().splitlines()}
    assert {name for name in names if name.startswith("PYTHON")} == {
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUTF8",
        "PYTHONPATH",
        "PYTHONSAFEPATH",
    }
    assert {"PATH", "LANG", "HOME"} <= names


def test_a_tree_s_own_engine_comes_before_its_lock_file_s(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    with pytest.raises(DataError, match="has no engine"):
        engine_of(tmp_path, runtime / "bin/python")
    packages = runtime / "lib/python3.11/site-packages/pyinfra_solo"
    packages.mkdir(parents=True)
    (packages / "__init__.py").touch()
    assert "PYTHONPATH" not in engine_of(tmp_path, runtime / "bin/python").environment
    (tmp_path / "bootstrap").symlink_to(ENGINE)
    assert engine_of(tmp_path, runtime / "bin/python").environment["PYTHONPATH"] == str(
        tmp_path / "bootstrap"
    )
