"""The idempotence check after a converge, and the switch that turns native off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.line import FILE, Line

RESTARTS = f"""
put = {FILE}
server.shell(name="it is restarted", commands=["true"], _if=put.did_change)
"""
NEVER_DONE = """
files.put(name="the file is there", src=StringIO(data.text), dest=f"{data.target}/file")
server.shell(name="it is never done", commands=["echo swordfish >/dev/null"])
files.file(name="it is touched", path=f"{data.target}/file", touch=True)
python.call(name="it is called", function=print)
"""
GOES_AWAY = """
server.shell(name="a source", commands=[f"echo text > {data.target}/source"])
files.put(name="it is copied", src=f"{data.target}/source", dest=f"{data.target}/copy")
server.shell(name="its source is gone", commands=[f"rm -f {data.target}/source"])
"""
UNDONE = """
files.put(name="the file is there", src=StringIO(data.text), dest=f"{data.target}/file", mode="644")
server.shell(name="another undoes it", commands=[f"chmod 600 {data.target}/file"], _if=lambda: True)
"""


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def again(line: Line) -> dict[str, list[str]]:
    return {one["name"]: one["would"] for one in line.report["again"]}


def test_operations_that_are_idempotent_are_not_named(line: Line) -> None:
    """An operation that depends on another's change is checked as it will run the next time."""
    line.in_service(RESTARTS)
    assert len(line.report["operations"]) == 2
    assert all(one["changed"] for one in line.report["operations"])
    assert again(line) == {}


def test_the_report_names_operations_without_their_arguments(line: Line) -> None:
    line.in_service(NEVER_DONE)
    assert again(line) == {
        "site | it is never done": ["run echo"],
        "site | it is touched": ["run touch"],
        "site | it is called": ["call print"],
    }
    said = line.machine.solo("report").must(0).out
    assert "it is never done" in said
    files = list((line.machine.state / "reports").iterdir())
    assert len(files) == 2
    assert not any("swordfish" in file.read_text() for file in files)


def test_an_operation_that_another_undoes_is_named(line: Line) -> None:
    line.in_service(UNDONE)
    assert "site | the file is there" in again(line)


def test_the_check_changes_nothing_and_leaves_the_gate_open(line: Line) -> None:
    line.in_service(UNDONE)
    assert line.machine.is_in
    assert (line.target / "file").stat().st_mode & 0o777 == 0o600


def test_with_refuse_the_gate_stays_closed_and_the_message_helps(line: Line) -> None:
    line.settings(converge='idempotence = "refuse"')
    line.commit(UNDONE)
    said = line.machine.solo("boot").must(30)
    assert not line.machine.is_in
    assert "a second converge would change something again: site | the file is there: run chmod" in said.err
    assert "Make it idempotent" in said.err
    assert line.report["outcome"] == "failed"
    line.commit(FILE)
    line.machine.solo("boot").must(0)
    assert line.machine.is_in


def test_an_operation_that_cannot_be_checked_is_named_with_the_reason(line: Line) -> None:
    line.in_service(GOES_AWAY)
    assert "cannot be looked at" in again(line)["site | it is copied"][0]


def test_without_a_change_there_is_no_check(line: Line) -> None:
    line.in_service(FILE)
    line.machine.solo("run").must(0)
    events = (line.machine.state / "reports" / f"{line.report['run']}.events").read_text()
    assert '"event":"again"' not in events


@pytest.mark.parametrize("switch", ["--stock", "native = false", ""])
def test_with_native_off_the_result_is_the_same(line: Line, switch: str) -> None:
    """Natively, a file is created without a child; with native off, its fact waits for one."""
    line.settings(converge=switch if "=" in switch else "native = true")
    line.commit(FILE)
    line.machine.solo("run", *([switch] if switch.startswith("--") else [])).must(0)
    assert (line.target / "file").read_text() == "hello"
    waits = [wait["what"] for one in line.report["operations"] for wait in one["waits"]]
    assert ("fact File" in waits) == bool(switch)
