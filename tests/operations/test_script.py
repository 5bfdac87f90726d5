"""A program of an operation is one text of Python 3.9's standard library, and takes its arguments by name."""

import ast
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.context import ctx_host

from pyinfra_solo.executor.host import local_state
from pyinfra_solo.native import programs
from pyinfra_solo.native.registry import answer_to
from pyinfra_solo.operations import accounts, packages, prelude, service, validated
from pyinfra_solo.operations.script import Program
from tests.operations.conftest import run
from tests.support.programs import is_alive

PROGRAMS = [accounts.PROGRAM, packages.PROGRAM, service.PROGRAM, validated.PROGRAM]
FACTS = [accounts.AccountGaps, packages.MissingPackages, packages.LockHolders, service.Baseline, service.ServiceState]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_is_python_3_9_and_imports_the_standard_library_alone(program: Program) -> None:
    tree = ast.parse(program.source, feature_version=(3, 9))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not [node for node in imports if isinstance(node, ast.ImportFrom) and node.level]
    modules = {getattr(node, "module", None) or one.name for node in imports for one in node.names}
    assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_and_the_prelude_define_no_name_twice(program: Program) -> None:
    """They are one module when they are sent."""
    body = ast.parse(program.source).body
    defined = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert len(set(defined)) == len(defined)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_command_fits_into_one_argument_with_room_for_its_quotes(program: Program) -> None:
    """execve(2), MAX_ARG_STRLEN: 128 KiB; sudo through a shell quotes the text twice."""
    assert len(shlex.quote(shlex.quote(program.source))) < 64 * 1024


@pytest.mark.parametrize("fact", FACTS)
def test_each_fact_is_answered_in_the_process(fact: type) -> None:
    assert answer_to(fact) is not None


TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.one_of(TEXT, st.booleans(), st.none(), st.integers(), st.lists(st.text()))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), VALUES, max_size=4))
def test_arguments_are_read_as_they_were_written(arguments: dict[str, Any]) -> None:
    assert prelude.decode(prelude.encode(arguments)) == arguments


def test_a_command_runs_this_python_here_and_python3_elsewhere(tmp_path: Path) -> None:
    ctx_host.reset()
    assert accounts.PROGRAM.command("check", {}).bits[0] == "python3"
    with ctx_host.use(next(iter(local_state(tmp_path, {}).inventory))):
        assert accounts.PROGRAM.command("check", {}).bits[0] == sys.executable


def test_a_failure_is_one_line_that_names_the_program(tmp_path: Path) -> None:
    done = run(validated.PROGRAM, "apply", new=str(tmp_path / "absent"), old="/x", validate="true")
    assert done.returncode == 1
    assert done.stderr == f"validated: [Errno 2] No such file or directory: '{tmp_path}/absent'\n"


def test_a_child_in_the_process_is_reported_and_has_a_time_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its whole group is ended."""
    waits: list[str] = []
    monkeypatch.setattr(programs, "after_child", lambda what, _seconds: waits.append(what))
    accounts.PROGRAM.call("check", {"name": "no-such-account", **dict.fromkeys(("home", "shell", "system", "groups", "keys"))})  # fmt: skip
    monkeypatch.setattr(prelude, "QUERY_SECONDS", 0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        prelude.query("sh", "-c", f"sleep 60 & echo $! >{tmp_path}/pid; wait")
    time.sleep(0.1)
    assert not is_alive(int((tmp_path / "pid").read_text()))
    assert waits == ["sh"]


def test_a_daemon_that_keeps_a_childs_output_holds_up_nobody(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! >{tmp_path}/pid; echo out; echo err >&2; exit 3"
    assert prelude.capture("sh", "-c", script) == (3, "out\nerr\n")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(("word", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_child_that_cannot_be_executed_has_a_shells_status(word: str, status: int) -> None:
    assert prelude.query(word).status == status


def test_a_file_is_replaced_whatever_is_in_the_new_ones_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".file.new")
    prelude.write(tmp_path / "file", "text", 0o640)
    (path,) = tmp_path.iterdir()
    assert (path.name, path.read_text(), oct(path.stat().st_mode)) == ("file", "text", "0o100640")
