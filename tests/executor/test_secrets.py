"""A value of the type Secret, here hunter2, is in no event, report, message, plan or argument of a process."""

import io
import json
from pathlib import Path

import pytest

from pyinfra_solo.errors import ConvergeError
from tests.support.line import converged, failed, new_run, working_tree

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
