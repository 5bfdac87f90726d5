"""The rules of the line, under both drivers: `pyinfra-solo run`, and `pyinfra @local deploy.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.files import listing, stamps
from tests.support.line import FILE, Line, working_tree
from tests.support.machine import ENGINE
from tests.support.programs import Result

CHANGE = FILE.replace("data.text", "'another text'") + "\n"
FAILURE = "\nserver.shell(name='it fails', commands='exit 1')\n"
UNDONE = "\nserver.shell(name='it is undone', commands=f'rm {data.target}/file')\n"
KILLED = """
def die():
    import json, os, signal
    for pid in (json.loads(open("{lock}").read())["pid"], os.getpid()):
        os.kill(pid, signal.SIGKILL)
python.call(name="the run and its executor are killed", function=die)
"""
HAS_FILE = 'checks.command(f"test -f {data.target}/file", within=0.5)'
FAILS = 'checks.command("false", within=0.1)'


class SoloLine(Line):
    """A machine that `pyinfra-solo run` converges from its ops repo."""

    def run(self, **flags: str) -> Result:
        """Run the line; role and stage are flags of their own, all others are values of the role."""
        words = [(f"--{key}", value) for key, value in flags.items() if key in ("role", "stage")]
        words += [
            ("--data", f"{key}={value}") for key, value in flags.items() if key not in ("role", "stage")
        ]
        return self.machine.solo("run", *(word for pair in words for word in pair))

    def put_in_service(self, operations: str = FILE, healthy: str = "") -> None:
        self.commit(operations, healthy)
        self.run().expect(0)
        assert self.machine.in_service


class PyinfraLine(SoloLine):
    """A machine that pyinfra's own command converges from a working tree."""

    tree: Path

    def commit(self, operations: str, healthy: str = "", more: Mapping[str, str | None] | None = None) -> str:
        assert more is None
        self.tree = working_tree(self.target, operations, healthy)
        return "unknown"

    def run(self, **flags: str) -> Result:
        words = [word for key, value in flags.items() for word in ("--data", f"{key}={value}")]
        return self.machine.pyinfra(self.tree, *words)


@pytest.fixture(params=[SoloLine, PyinfraLine], ids=["pyinfra-solo run", "pyinfra"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> SoloLine:
    made = request.param(tmp_path)
    assert isinstance(made, SoloLine)
    return made


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A converge of a machine in service. during: the gate, as an operation finds it; after: in service."""

    operations: str
    healthy: str = ""
    drain: str = "on-change"
    during: str = ""
    ok: bool = True
    after: bool = True


RULES = {
    "a change": Rule(operations=CHANGE, during="closed"),
    "a change with drain never": Rule(operations=CHANGE, drain="never", during="open"),
    "a failure after a change": Rule(operations=CHANGE + FAILURE, drain="never", ok=False, after=False),
    "a failure before any change": Rule(operations="raise ValueError('a bug')", ok=False),
    "a check that fails after a change": Rule(
        operations=FILE + UNDONE, healthy=HAS_FILE, ok=False, after=False
    ),
    "a check that fails without a change": Rule(operations=FILE, healthy=FAILS, ok=False, after=False),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_machine_in_service_is_treated_by_rule(line: SoloLine, rule: Rule) -> None:
    line.put_in_service()
    line.settings(limits=f'drain = "{rule.drain}"')
    line.commit(rule.operations + line.note_gate * bool(rule.during), rule.healthy)
    assert (line.run().code == 0) == rule.ok
    assert line.noted_gate == [rule.during] if rule.during else not (line.target / "seen").exists()
    assert line.machine.in_service == rule.after


def test_failed_run_with_drain_always_leaves_the_gate_closed(tmp_path: Path) -> None:
    """It was closed at the start. pyinfra's own command closes it with its first operation."""
    line = SoloLine(tmp_path)
    line.put_in_service()
    line.settings(limits='drain = "always"')
    line.commit("raise ValueError('a bug')")
    line.run().expect(1)
    assert not line.machine.in_service


def test_new_machine_opens_its_gate_after_the_last_operation(line: SoloLine) -> None:
    sha = line.commit(FILE + line.note_gate, HAS_FILE)
    line.run().expect(0)
    assert line.noted_gate == ["closed"]
    assert line.machine.in_service
    statement = statement_of(line)
    assert (statement["role"], statement["stage"], statement["sha"]) == ("site", "staging", sha)
    assert [check["target"] for check in statement["checks"]] == [f"test -f {line.target}/file"]


def test_run_without_a_change_leaves_the_gate_untouched(line: SoloLine) -> None:
    line.put_in_service()
    before = stamps(line.machine.run_folder / "gate")
    line.run().expect(0)
    assert stamps(line.machine.run_folder / "gate") == before


def test_drain_always_closes_the_gate_without_a_change(line: SoloLine) -> None:
    line.put_in_service()
    before = stamps(line.machine.run_folder / "gate")
    line.settings(limits='drain = "always"')
    line.run().expect(0)
    assert stamps(line.machine.run_folder / "gate") != before
    assert line.machine.in_service


def test_gate_closed_by_hand_during_a_run_stays_closed(line: SoloLine) -> None:
    """`gate open` opens it then: the run has left its statement."""
    close = f"PYTHONPATH={ENGINE} {sys.executable} -m pyinfra_solo gate close --reason maintenance"
    line.commit(FILE + f"\nserver.shell(name='it is closed', commands='{close}')\n")
    assert line.run().code != 0
    assert not line.machine.in_service
    assert line.close_reason == "maintenance"
    line.machine.solo("gate", "open", "--reason", "done").expect(0)
    assert line.machine.in_service


def test_run_that_is_killed_under_an_open_gate_closes_it_for_who_looks_next(line: SoloLine) -> None:
    """With drain "never" nobody is left to close it: the next reader does."""
    line.put_in_service()
    line.settings(limits='drain = "never"')
    line.commit(CHANGE + KILLED.format(lock=line.machine.run_folder / "lock"))
    assert line.run().code != 0
    status = line.machine.solo("status").expect(1)
    assert "under an open gate, and did not end" in status.stdout
    assert not line.machine.in_service
    line.machine.solo("gate", "open", "--reason", "it looks well").expect(30)
    assert not line.machine.in_service


def test_role_stage_and_values_are_taken_from_flags(line: SoloLine) -> None:
    line.settings(machine='ec2 = "no"')
    line.commit(FILE)
    line.run(role="site", stage="production", text="goodbye").expect(0)
    assert (line.target / "file").read_text() == "goodbye"
    assert statement_of(line)["stage"] == "production"


@pytest.mark.parametrize(
    ("flags", "settings", "code"),
    [({"role": "stie"}, "", 12), ({"txet": "x"}, "", 13), ({}, "this is not TOML", 13)],
    ids=["unknown role", "unknown value", "unreadable settings"],
)
def test_error_before_converge_has_its_exit_status_and_one_line(
    line: SoloLine, flags: dict[str, str], settings: str, code: int
) -> None:
    line.commit(FILE)
    if settings:
        line.machine.config.write_text(settings)
    failed = line.run(**flags).expect(code)
    assert sum(text.startswith("pyinfra-solo: ") for text in failed.stderr.splitlines()) == 1
    assert list(line.target.iterdir()) == []
    assert not line.machine.in_service


def test_both_drivers_make_the_same_files_and_gate(tmp_path: Path) -> None:
    """Same modes, owners and contents."""
    operations = """
        files.directory(name="a folder", path=f"{data.target}/folder", mode="2750", group="adm")
        files.put(name="a file", src=StringIO("caf\\u00e9"), dest=f"{data.target}/folder/file", mode="640", user="nobody")
        files.template(name="a template", src=StringIO("{{ text }}\\n"), dest=f"{data.target}/it", text=data.text)
        files.line(name="a line", path=f"{data.target}/it", line="more")
        files.link(name="a link", path=f"{data.target}/link", target="folder/file")
        server.shell(name="a command", commands="echo $A > output", _chdir=data.target, _env={"A": "b"})
    """
    made = []
    for kind in (SoloLine, PyinfraLine):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        line = kind(folder)
        line.put_in_service(operations, 'checks.command("true")')
        statement = statement_of(line)
        made.append(
            (
                listing(line.target),
                listing(line.machine.run_folder / "gate"),
                {key: statement[key] for key in ("role", "stage", "boot_id", "checks")},
            )
        )
    assert made[0] == made[1]


def statement_of(line: Line) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((line.machine.run_folder / "statement.json").read_text())
    return found
