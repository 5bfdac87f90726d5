"""The idempotence check after a converge, and the switch that turns native facts off."""

from __future__ import annotations

import pytest

from tests.support.line import FILE, Line

DEPENDS = f"""
put = {FILE}
server.shell(name="it is restarted", commands=["true"], _if=put.did_change)
"""
NOT_IDEMPOTENT = """
files.put(name="the file is there", src=StringIO(data.text), dest=f"{data.target}/file")
server.shell(name="it is never done", commands=["echo swordfish >/dev/null"])
files.file(name="it is touched", path=f"{data.target}/file", touch=True)
python.call(name="it is called", function=print)
"""
SOURCE_REMOVED = """
server.shell(name="a source", commands=[f"echo text > {data.target}/source"])
files.put(name="it is copied", src=f"{data.target}/source", dest=f"{data.target}/copy")
server.shell(name="its source is removed", commands=[f"rm -f {data.target}/source"])
"""
UNDONE = """
files.put(name="the file is there", src=StringIO(data.text), dest=f"{data.target}/file", mode="644")
server.shell(name="another undoes it", commands=[f"chmod 600 {data.target}/file"], _if=lambda: True)
"""


def not_idempotent(line: Line) -> dict[str, list[str]]:
    return {one["name"]: one["commands"] for one in line.report["not_idempotent"]}


def test_idempotent_operations_are_not_reported(line: Line) -> None:
    """What depends on another's change is evaluated as without that change."""
    line.put_in_service(DEPENDS)
    assert len(line.report["operations"]) == 2
    assert all(one["changed"] for one in line.report["operations"])
    assert not_idempotent(line) == {}


def test_operations_that_change_each_time_are_reported_in_short(line: Line) -> None:
    """Without arguments, which may hold secrets."""
    line.put_in_service(NOT_IDEMPOTENT)
    assert not_idempotent(line) == {
        "site | it is never done": ["run echo"],
        "site | it is touched": ["run touch"],
        "site | it is called": ["call print"],
    }
    assert "it is never done" in line.machine.solo("report").expect(0).stdout
    files = list((line.machine.state / "reports").iterdir())
    assert len(files) == 2
    assert not any("swordfish" in file.read_text() for file in files)


def test_operation_that_another_undoes_is_reported_and_not_run(line: Line) -> None:
    line.put_in_service(UNDONE)
    assert "site | the file is there" in not_idempotent(line)
    assert (line.target / "file").stat().st_mode & 0o777 == 0o600


def test_setting_refuse_keeps_the_gate_closed(line: Line) -> None:
    line.settings(converge='idempotence = "refuse"')
    line.commit(UNDONE)
    failed = line.machine.solo("boot").expect(30)
    assert not line.machine.in_service
    assert "a second converge would change something: site | the file is there: run chmod" in failed.stderr
    assert "Make it idempotent" in failed.stderr
    assert line.report["outcome"] == "failed"
    line.commit(FILE)
    line.machine.solo("boot").expect(0)
    assert line.machine.in_service


def test_operation_that_cannot_be_evaluated_is_reported(line: Line) -> None:
    line.put_in_service(SOURCE_REMOVED)
    assert "cannot be evaluated" in not_idempotent(line)["site | it is copied"][0]


def test_run_without_a_change_makes_no_idempotence_check(line: Line) -> None:
    line.put_in_service(FILE)
    line.machine.solo("run").expect(0)
    events = (line.machine.state / "reports" / f"{line.report['run']}.events").read_text()
    assert '"event":"Done"' in events
    assert "Idempotence" not in events


@pytest.mark.parametrize("switch", ["--no-native", "native = false", ""])
def test_flag_or_setting_turns_native_facts_off(line: Line, switch: str) -> None:
    """Natively, a file is made without a child; a fact of a shell command is waited for."""
    line.settings(converge=switch if "=" in switch else "native = true")
    line.commit(FILE)
    line.machine.solo("run", *([switch] if switch.startswith("--") else [])).expect(0)
    assert (line.target / "file").read_text() == "hello"
    waits = [wait["what"] for one in line.report["operations"] for wait in one["waits"]]
    assert ("fact File" in waits) == bool(switch)
