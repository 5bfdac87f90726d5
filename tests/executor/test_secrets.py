"""A value of the type Secret, here hunter2, is in no event, report, message, plan or argument of a process."""

import io
import json
from pathlib import Path

import pytest

from pyinfra_solo.checks import command, perform
from pyinfra_solo.errors import ConvergeError, DataError
from tests.support.line import Line, converged, failed, new_run, working_tree

OPERATIONS = """
    server.shell(commands=f"echo {data.token}; cat /proc/[0-9]*/cmdline | tr '\\\\0' ' ' > {data.target}/arguments")
    files.put(src=StringIO(f"token = {data.token}"), dest=f"{data.target}/token")
    files.line(path=f"{data.target}/line", line=f"token = {data.token}")
    server.shell(name=f"named with {data.token}", commands="true", _env={"TOKEN": data.token})
    server.shell(name="it fails", commands=f"echo the token is {data.token} >&2; exit 1")
"""
SECRET = {"token": "hunter2"}


def test_secret_is_redacted_in_a_converge_that_fails(target: Path) -> None:
    """Any user of the machine may read /proc/*/cmdline."""
    message, run = failed(working_tree(target, OPERATIONS), ConvergeError, data=SECRET)
    assert run.events_file
    events = run.events_file.read_text()
    arguments = (target / "arguments").read_text(errors="replace")
    assert (target / "token").read_text() == "token = hunter2"
    assert message == "The operation 'site | it fails' failed: the token is [redacted]"
    assert run.report.operations[-1].output == ["the token is [redacted]"]
    assert "named with [redacted]" in events
    assert "pyinfra_solo.executor" in arguments
    names = json.dumps([one.name for one in run.report.operations])
    assert "hunter2" not in arguments + events + message + names


@pytest.mark.parametrize("mode", ["plan", "blank"])
def test_secret_is_redacted_in_a_plan(target: Path, mode: str) -> None:
    changes = converged(working_tree(target, OPERATIONS), mode=mode, data=SECRET)
    text = "\n".join(line for one in changes.operations for line in (one.name, *one.diff))
    assert f"{target}/token differs by +1 -0 lines (not shown: it holds a secret)" in text
    assert "hunter2" not in text
    assert list(target.iterdir()) == []


def test_secret_is_redacted_when_a_role_cannot_be_declared(target: Path) -> None:
    root = working_tree(target, 'raise ValueError(f"the token {data.token} is too short")')
    output = io.StringIO()
    with pytest.raises(ConvergeError, match=r"the token \[redacted\] is too short"):
        converged(root, run=new_run(output=output), data=SECRET)
    assert "hunter2" not in output.getvalue()


CHECK = (
    'checks.command(f"test -e {data.target}/{data.token} || {{ echo no {data.token}; false; }}", within=0.1)'
)
"""It passes when the role has made the file that the secret names."""
NAMED = 'files.put(src=StringIO("x"), dest=f"{data.target}/{data.token}")'


@pytest.fixture
def line(tmp_path: Path) -> Line:
    made = Line(tmp_path)
    made.commit("pass", CHECK, {"inventories/group_data/all.py": "token = 'swordfish'\n"})
    return made


def shown(line: Line) -> str:
    """Return all that a boot, a report and a status leave in logs."""
    done = line.machine.solo("boot")
    files = [path.read_text() for path in (line.machine.state / "reports").iterdir()]
    more = [
        ("report",), ("report", "--json"), ("status",), ("status", "--json"), ("gate", "status", "--json"),
    ]  # fmt: skip
    texts = [done.stdout, done.stderr, *(line.machine.solo(*words).stdout for words in more), *files]
    return "\n".join(texts)


def test_secret_of_a_check_that_fails_is_in_no_log(line: Line) -> None:
    """It was in events, report, journal, and in the reason of the closed gate."""
    text = shown(line)
    assert f"command test -e {line.target}/[redacted] ||" in text
    assert "exit status 1: no [redacted]" in text
    assert "swordfish" not in text
    assert not line.machine.in_service


def test_check_with_a_secret_works_and_is_repeated(line: Line) -> None:
    """`gate open` performs what the statement holds, which is root's alone."""
    line.commit(NAMED, CHECK, {"inventories/group_data/all.py": "token = 'swordfish'\n"})
    text = shown(line)
    assert line.machine.in_service
    assert "[redacted]" in text
    assert "swordfish" not in text
    line.machine.solo("gate", "close", "--reason", "a test").expect(0)
    opened = line.machine.solo("gate", "open", "--reason", "a test").expect(0)
    assert line.machine.in_service
    (line.target / "swordfish").unlink()
    line.machine.solo("gate", "close", "--reason", "a test").expect(0)
    refused = line.machine.solo("gate", "open", "--reason", "a test").expect(30)
    assert "swordfish" not in opened.stderr + refused.stderr + json.dumps(line.report)
    statement = line.machine.run_folder / "statement.json"
    assert not statement.exists() or statement.stat().st_mode & 0o777 == 0o600


def test_command_of_a_check_is_in_no_argument_of_a_process(target: Path) -> None:
    """Any account may read /proc/*/cmdline."""
    arguments = target / "arguments"
    check = command(f"tr '\\0' ' ' </proc/$$/cmdline >{arguments} # swordfish")
    assert perform(check, 0).passed
    assert "swordfish" not in arguments.read_text()


def test_failure_of_healthy_is_redacted(target: Path) -> None:
    root = working_tree(target, "pass")
    module = root / "roles/site/__init__.py"
    module.write_text(module.read_text().replace("return []", "raise ValueError(data.token)"))
    message, _ = failed(root, DataError, data=SECRET)
    assert "ValueError: [redacted]" in message


def test_secret_that_the_data_refuses_is_redacted(target: Path) -> None:
    """The data's own __post_init__ may quote it."""
    root = working_tree(target, "pass")
    module = root / "roles/site/__init__.py"
    refuses = 'target: str = {!r}\n\n    def __post_init__(self):\n        raise ValueError(f"{{self.token}} is too short")'
    module.write_text(
        module.read_text().replace(f"target: str = {str(target)!r}", refuses.format(str(target)))
    )
    message, _ = failed(root, DataError, data=SECRET)
    assert message == (
        "The data of the role 'site' refuses its values: ValueError: [redacted] is too short. Correct one and commit."
    )
