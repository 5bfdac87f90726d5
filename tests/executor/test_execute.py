"""Operations one after another: uploads, time limits, the idempotence check, and names of commands."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from pyinfra.api import QuoteString, StringCommand

from pyinfra_solo.errors import ConvergeError, DeadlineError, JudgedError
from pyinfra_solo.executor.connector import program
from pyinfra_solo.operations import packages
from pyinfra_solo.operations.release import bundle
from pyinfra_solo.protocol import NotIdempotent, OperationEnded
from pyinfra_solo.stations.converge import Changes
from tests.support.line import converged, failed, new_run, working_tree

CALLBACK_READS = """
def read():
    files.put(name="it is put inside", src=StringIO("new"), dest=f"{data.target}/file", mode="600")
    Path(f"{data.target}/seen").write_text(Path(f"{data.target}/file").read_text())

files.put(name="it is put", src=StringIO("old"), dest=f"{data.target}/file", mode="644")
python.call(name="it is read", function=read)
"""
OPERATION_READS = """
from pyinfra.api import FileUploadCommand, operation

@operation()
def put_and_read():
    yield FileUploadCommand(StringIO("new"), f"{data.target}/file")
    Path(f"{data.target}/seen").write_text(Path(f"{data.target}/file").read_text())
    yield "true"

put_and_read(name="an operation of the role's own")
"""
PUTS_BEFORE_ITS_COMMAND = """
from pyinfra.api import operation

@operation()
def put():
    host.put_file(StringIO("new"), f"{data.target}/file")
    with open(f"{data.target}/seen", "a") as opened:
        opened.write(Path(f"{data.target}/file").read_text())
    yield "true"

files.put(name="it is put", src=StringIO("old"), dest=f"{data.target}/file", mode="644")
put(name="an operation that puts before its first command")
"""
PUTS_IN_A_CONDITION = """
def put():
    host.put_file(StringIO("new"), f"{data.target}/file")
    with open(f"{data.target}/seen", "a") as opened:
        opened.write(Path(f"{data.target}/file").read_text())

files.put(name="it is put", src=StringIO("old"), dest=f"{data.target}/file", user="no-such-user", _ignore_errors=True)
server.shell(name="never", commands=["false"], _if=put)
"""
NOTES_AFTER_A_COMMAND = """
from pyinfra.api import operation

@operation()
def notes():
    yield "true"
    with open(f"{data.target}/notes", "a") as opened:
        opened.write("noted")

notes(name="it notes")
"""
RAISES_AFTER_THE_UPLOAD = """
import datetime

class Late(datetime.tzinfo):
    def utcoffset(self, _when):
        if Path(f"{data.target}/began").exists():
            raise RuntimeError("too late")
        return datetime.timedelta(0)

    dst = utcoffset

server.shell(name="it begins", commands=[f"touch {data.target}/began"])
files.put(
    name="it is put", src=StringIO("new"), dest=f"{data.target}/file", mode="640",
    mtime=datetime.datetime(2020, 1, 1, tzinfo=Late()),
)
"""
SLEEPS = "import time\npython.call(name='it sleeps', function=lambda: time.sleep(60), _timeout={timeout})"
FAILURE_IGNORED = """
server.shell(name="it half fails", commands=[f"echo x >{data.target}/half; false"], _ignore_errors=True)
server.shell(name="it is never done", commands=["true"], _if=lambda: not Path(f"{data.target}/seen").exists())
"""


@pytest.mark.parametrize(
    "operations",
    [CALLBACK_READS, OPERATION_READS, PUTS_BEFORE_ITS_COMMAND, PUTS_IN_A_CONDITION],
    ids=["callback", "operation", "put", "condition"],
)
def test_code_of_a_role_reads_what_was_uploaded_before(target: Path, operations: str) -> None:
    converged(working_tree(target, operations))
    seen = (target / "seen").read_text()
    assert seen
    assert not seen.replace("new", "")


def test_upload_is_in_place_when_its_operation_raises_after_it(target: Path) -> None:
    """As with pyinfra's own connector: with the owner and mode that were set by then."""
    message, _ = failed(working_tree(target, RAISES_AFTER_THE_UPLOAD), ConvergeError)
    assert "too late" in message
    assert (target / "file").read_text() == "new"
    assert stat.S_IMODE((target / "file").stat().st_mode) == 0o640
    assert sorted(path.name for path in target.iterdir()) == ["began", "file"]


def test_idempotence_check_stops_at_the_first_command(target: Path) -> None:
    """An operation's own code after it is not run."""
    changes = converged(working_tree(target, NOTES_AFTER_A_COMMAND))
    assert (target / "notes").read_text() == "noted"
    assert [one.commands for one in changes.not_idempotent or []] == [["run true"]]


def test_idempotence_is_checked_after_an_ignored_failure(target: Path) -> None:
    """It may have changed something."""
    changes = converged(working_tree(target, FAILURE_IGNORED))
    assert (target / "half").read_text() == "x\n"
    assert [one.name for one in changes.not_idempotent or []] == [
        "site | it half fails",
        "site | it is never done",
    ]


def test_python_function_is_ended_by_its_time_out(target: Path) -> None:
    """It does not yield to gevent, and gevent's time-outs end nothing else."""
    message = re.escape(
        "'site | it sleeps' failed: TimeoutError: took longer than 1 s and was ended (roles/site/__init__.py:"
    )
    with pytest.raises(ConvergeError, match=message):
        converged(working_tree(target, SLEEPS.format(timeout=1)))


def test_error_of_the_deadline_names_the_running_operation(target: Path) -> None:
    """Also behind operations whose events are still buffered."""
    put = 'files.put(name="it is put", src=StringIO("old"), dest=f"{data.target}/file")\n'
    with pytest.raises(DeadlineError, match=re.escape("the operation 'site | it sleeps' was running")):
        converged(working_tree(target, put + SLEEPS.format(timeout=None)), run=new_run(4))


CHANGED = OperationEnded(name="one", changed=True)


@pytest.mark.parametrize(
    ("operations", "found", "error"),
    [
        ([CHANGED], None, "made no idempotence check"),
        ([CHANGED], [NotIdempotent(name="one", commands=["run true"])], "one: run true"),
        ([CHANGED], [], None),
        ([], None, None),
    ],
)
def test_idempotence_is_required_of_every_change(
    operations: list[OperationEnded], found: list[NotIdempotent] | None, error: str | None
) -> None:
    """An older engine makes no check, and that proves nothing."""
    changes = Changes(operations=operations, checks=[], not_idempotent=found)
    if error:
        with pytest.raises(JudgedError, match=error):
            changes.require_idempotent()
    else:
        changes.require_idempotent()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (packages.PROGRAM.command("check", {"packages": ["nginx"]}), "packages"),
        (bundle.command("apply", "hunter2"), "release"),
        (StringCommand("sh", "-c", "true #hunter2"), "sh"),
        (StringCommand("sh", "-c", QuoteString("true"), "hunter2 hunter2"), "sh"),
        (StringCommand("useradd", "-c", QuoteString("hunter2"), "-s", "/bin/sh", "name"), "useradd"),
        (StringCommand("/usr/bin/mysql -phunter2"), "mysql"),
        (StringCommand("PASSWORD=hunter2 mysql"), "sh"),
        (StringCommand("'hunter2'"), "sh"),
        ("systemctl daemon-reload", "systemctl"),
    ],
)
def test_command_is_named_by_its_program_alone(command: StringCommand | str, name: str) -> None:
    assert program(command) == name
