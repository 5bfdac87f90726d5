"""How an operation is done: what its own code sees, how long it may take, and what is told of it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import msgspec
import pytest
from pyinfra.api import QuoteString, StringCommand

from pyinfra_solo.errors import ConvergeError, DeadlineError, JudgedError
from pyinfra_solo.executor.__main__ import Request, _request
from pyinfra_solo.executor.connector import program
from pyinfra_solo.executor.events import EventWriter
from pyinfra_solo.operations import script
from pyinfra_solo.operations.release import bundle
from pyinfra_solo.report.records import Operation
from pyinfra_solo.stations.converge import Changes
from tests.support.machine import converged, new_run, ops, put_below, write

SEES = """
def look():
    files.put(name="it is put inside", src=StringIO("new"), dest=f"{data.target}/file", mode="600")
    Path(f"{data.target}/seen").write_text(Path(f"{data.target}/file").read_text())

files.put(name="it is put", src=StringIO("old"), dest=f"{data.target}/file", mode="644")
python.call(name="it is seen", function=look)
"""
OWN = """
from pyinfra.api import FileUploadCommand, operation

@operation()
def put_and_read():
    yield FileUploadCommand(StringIO("text"), f"{data.target}/file")
    Path(f"{data.target}/seen").write_text(Path(f"{data.target}/file").read_text())
    yield "true"

put_and_read(name="an operation of the role's own")
"""
TWICE = """
from pyinfra.api import operation

@operation()
def notes():
    yield "true"
    with open(f"{data.target}/notes", "a") as opened:
        opened.write("noted")

notes(name="it notes")
"""
SLEEPS = """
import time
python.call(name="it sleeps", function=lambda: time.sleep(60), {arguments})
"""
HALF = """
server.shell(name="it half fails", commands=[f"echo x >{data.target}/half; false"], _ignore_errors=True)
server.shell(name="it is never done", commands=["true"], _if=lambda: not Path(f"{data.target}/seen").exists())
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put_below(tmp_path / "machine", monkeypatch)
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def tree(target: Path, operations: str) -> Path:
    return write(target.parent / "ops", ops(operations, target))


@pytest.mark.parametrize("operations", [SEES, OWN])
def test_a_roles_own_code_finds_in_its_place_what_was_put(target: Path, operations: str) -> None:
    converged(tree(target, operations))
    assert (target / "seen").read_text() == (target / "file").read_text()


def test_a_second_look_runs_no_code_past_the_first_command(target: Path) -> None:
    changes = converged(tree(target, TWICE))
    assert (target / "notes").read_text() == "noted"
    assert [one.would for one in changes.again or []] == [["run true"]]


def test_what_failed_and_was_ignored_is_looked_at_again_as_it_may_have_changed_something(
    target: Path,
) -> None:
    changes = converged(tree(target, HALF))
    assert (target / "half").read_text() == "x\n"
    assert [one.name for one in changes.again or []] == ["site | it half fails", "site | it is never done"]


def test_a_function_has_a_time_like_any_command(target: Path) -> None:
    """It does not give way to gevent, and gevent's time-outs end nothing else."""
    with pytest.raises(
        ConvergeError, match=re.escape("'site | it sleeps' failed: Command timed out after 1s")
    ):
        converged(tree(target, SLEEPS.format(arguments="_timeout=1")))


def test_out_of_time_names_the_operation_that_was_at_work(target: Path) -> None:
    operations = f"""
files.put(name="it is put", src=StringIO("old"), dest=f"{{data.target}}/file")
{SLEEPS.format(arguments="")}
"""
    with pytest.raises(DeadlineError, match=re.escape("the operation 'site | it sleeps' was running")):
        converged(tree(target, operations), run=new_run(6))


def test_an_engine_without_a_second_look_proves_nothing() -> None:
    changed = Operation(name="one", changed=True)
    changes = Changes(roles=[], operations=[changed], checks=[], closed=False)
    with pytest.raises(JudgedError, match="no second look"):
        changes.require_idempotent()
    Changes(roles=[], operations=[], checks=[], closed=False).require_idempotent()
    Changes(roles=[], operations=[changed], checks=[], closed=False, again=[]).require_idempotent()


def test_an_engine_that_is_asked_what_it_does_not_know_says_so() -> None:
    known = {"protocol": 1, "root": "/", "role": "a", "stage": "b", "flags": {}, "mode": "converge",
             "close_on_change": True, "operation_seconds": 1}  # fmt: skip
    assert _request(json.dumps(known).encode()) == msgspec.convert(known, Request)
    with pytest.raises(ConvergeError, match=r"The engines disagree: .*`newer`.*Bake a new image"):
        _request(json.dumps({**known, "newer": True}).encode())


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (script.run("packages", "look", "nginx"), "sh packages"),
        (script.run("service", "look", environment={"TOKEN": "hunter2"}), "sh service"),
        (bundle.command("apply", "hunter2"), "sh release"),
        (StringCommand("sh", "-c", "true #hunter2"), "sh"),
        (StringCommand("sh", "-c", QuoteString("true"), "hunter2 hunter2"), "sh"),
        (StringCommand("useradd", "-c", QuoteString("hunter2"), "-s", "/bin/sh", "name"), "useradd"),
        (StringCommand("/usr/bin/mysql -phunter2"), "mysql"),
        (StringCommand("PASSWORD=hunter2 mysql"), "sh"),
        (StringCommand("'hunter2'"), "sh"),
        ("systemctl daemon-reload", "systemctl"),
    ],
)
def test_a_command_is_named_by_its_program_alone(command: StringCommand | str, name: str) -> None:
    assert program(command) == name


def test_a_secret_is_hidden_in_every_form_that_a_message_gives_it() -> None:
    hidden = "hush  hush\tsecret\\x"
    out = io.BytesIO()
    tell = EventWriter(out)
    tell.hide([hidden])
    tell.event("failed", message=f"{hidden} and {hidden!r} and {' '.join(hidden.split())}")
    assert b"hush" not in out.getvalue()
    assert out.getvalue().count(b"[redacted]") == 3
