"""The parent of a converge: it reads the executor's events, ends it in time, and names what went wrong."""

import io
import os
import signal
import threading
from pathlib import Path

import pytest

from pyinfra_solo import paths
from pyinfra_solo.errors import ConvergeError, DataError, DeadlineError
from pyinfra_solo.stations.converge import engine_of
from tests.support.line import converged, new_run, working_tree
from tests.support.machine import ENGINE
from tests.support.programs import is_alive, wait_for

TRUE = "server.shell(name='one', commands='true')\n"


def test_deadline_ends_every_process_of_the_session(target: Path) -> None:
    """A command's grandchild in a group of its own, too."""
    root = working_tree(
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


def test_executor_that_is_killed_fails_with_its_operation(target: Path) -> None:
    """The kernel does so when memory runs out."""
    root = working_tree(
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
        "See its last lines in the journal (`journalctl -t pyinfra-solo`)."
    )


def test_role_that_ends_the_executor_fails_the_converge(target: Path) -> None:
    """Exit status 0 without the last event is not a converge."""
    with pytest.raises(ConvergeError, match="ended with exit status 0 while starting pyinfra"):
        converged(working_tree(target, "import os\nos._exit(0)"))


def test_operations_are_shown_as_they_end(target: Path) -> None:
    output = io.StringIO()
    root = working_tree(target, TRUE + "files.directory(name='two', path=data.target)")
    converged(root, run=new_run(output=output))
    shown = [line.split(" in ")[0] for line in output.getvalue().splitlines()]
    assert shown[1:3] == ["converge: 1/2 site | one: changed", "converge: 2/2 site | two: ok"]


def test_log_of_events_that_cannot_be_written_stops_nothing(target: Path) -> None:
    (paths.STATE / "reports").rmdir()
    assert converged(working_tree(target, TRUE)).changed == 1


def test_environment_of_python_does_not_reach_operations(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    converged(working_tree(target, "server.shell(name='one', commands=f'env > {data.target}/env')"))
    names = {line.partition("=")[0] for line in (target / "env").read_text().splitlines()}
    assert {name for name in names if name.startswith("PYTHON")} == {
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUTF8",
        "PYTHONPATH",
        "PYTHONSAFEPATH",
    }
    assert {"PATH", "LANG", "HOME"} <= names


def test_engine_of_a_checkout_comes_before_its_lock_files(tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    with pytest.raises(DataError, match="has no engine"):
        engine_of(tmp_path, runtime / "bin/python")
    packages = runtime / "lib/python3.11/site-packages/pyinfra_solo"
    packages.mkdir(parents=True)
    (packages / "__init__.py").touch()
    assert "PYTHONPATH" not in engine_of(tmp_path, runtime / "bin/python").environment
    (tmp_path / "bootstrap").symlink_to(ENGINE)
    environment = engine_of(tmp_path, runtime / "bin/python").environment
    assert environment["PYTHONPATH"] == str(tmp_path / "bootstrap")
