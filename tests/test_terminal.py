"""No text from outside reaches a terminal, a journal or a report's file with what moves a cursor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.line import FILE, Line, working_tree
from tests.support.machine import LocalMachine

EVIL = "\\033[2J\\302\\2331A\\342\\200\\256\\007\\033]0;title\\007"
"""For printf(1): ESC, the control U+009B, a bidi override, BEL."""
CHECK = f"checks.command(\"printf '{EVIL}' ; false\", within=0.1)".replace("\\", "\\\\")
FAILS = f"""server.shell(name="it fails", commands=["printf '{EVIL}' >&2; exit 1"])""".replace("\\", "\\\\")
NAMED = 'server.shell(name="named \\x1b[2J\\x9b1A\\u202e", commands=["true"])'
WARNS = 'import logging\nlogging.getLogger("pyinfra").warning("warned \\x1b[2J\\x9b1A\\u202e")\n'


def controls(text: str) -> set[str]:
    """Return the characters that are neither printable nor white space of a text's layout."""
    return {one for one in text if not one.isprintable() and one not in "\n\t"}


def shown(line: Line, command: str = "boot") -> str:
    """Return all that a run and the commands that show it print and keep."""
    done = line.machine.solo(command)
    words = [
        "status", "status --json", "gate status", "gate status --json", "report", "report --slow", "report --timeline",
        "report --json", f"report --html {line.target}/page.html",
    ]  # fmt: skip
    results = [done, *(line.machine.solo(*one.split()) for one in words)]
    reports = [path.read_text() for path in (line.machine.state / "reports").iterdir()]
    page = (line.target / "page.html").read_text()
    return "\n".join((*(one.stdout + one.stderr for one in results), *reports, page))


@pytest.mark.parametrize("operations", [FAILS, NAMED, WARNS + FAILS], ids=["output", "name", "warning"])
def test_controls_of_an_operation_are_shown_as_codes(tmp_path: Path, operations: str) -> None:
    line = Line(tmp_path)
    line.commit(operations)
    text = shown(line)
    assert "\\x1b[2J" in text
    assert not controls(text)


def test_controls_of_a_check_are_shown_as_codes(tmp_path: Path) -> None:
    """They are the reason of the closed gate, too."""
    line = Line(tmp_path)
    line.commit("pass", CHECK)
    text = shown(line)
    assert "exit status 1: \\x1b[2J\\x9b1A" in text
    assert not controls(text)
    closed = line.machine.solo("gate", "status").stdout
    assert closed.startswith("closed: Converged, but the role's checks failed: ")
    assert not controls(closed)


def test_controls_in_a_plan_are_shown_as_codes(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.commit(
        f"{NAMED}\nfiles.put(name='put', src=StringIO('\\x1b[2J\\x9b1A'), dest=f'{{data.target}}/it')"
    )
    done = line.machine.solo("plan").expect(2)
    assert "+\\x1b[2J\\x9b1A" in done.stdout
    assert not controls(done.stdout + done.stderr)
    assert not controls(line.machine.solo("plan", "--json").stdout)


def test_report_escapes_controls_without_changing_the_text(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.commit(NAMED)
    line.machine.solo("boot").expect(0)
    assert line.report["operations"][0]["name"] == "site | named \x1b[2J\x9b1A\u202e"
    (events,) = (line.machine.state / "reports").glob("*.events")
    names = [json.loads(one).get("name") for one in events.read_text().splitlines()]
    assert "site | named \x1b[2J\x9b1A\u202e" in names


@pytest.mark.parametrize("words", [[], ["-v"], ["-vvv"]], ids=str)
def test_controls_are_shown_as_codes_under_pyinfra_s_own_command(
    tmp_path: Path, target: Path, words: list[str]
) -> None:
    """pyinfra prints output as it is. Its colours stay."""
    machine = LocalMachine(tmp_path / "machine")
    done = machine.pyinfra(working_tree(target, FAILS), *words)
    assert done.code == 1
    assert "\\x1b[2J\\x9b1A\\u202e" in done.stdout + done.stderr
    assert "\x1b[2J" not in done.stdout + done.stderr
    assert controls(done.stdout + done.stderr) <= {"\x1b"}


def test_error_of_the_line_is_printable_under_pyinfra_s_own_command(tmp_path: Path, target: Path) -> None:
    machine = LocalMachine(tmp_path / "machine")
    machine.configure(machine='"\\u001b[2J" = 1')
    done = machine.pyinfra(working_tree(target, "pass")).expect(13)
    assert "pyinfra-solo: " in done.stderr
    assert "\\x1b[2J" in done.stderr
    assert "\x1b[2J" not in done.stdout + done.stderr


def test_failed_check_is_printable_under_pyinfra_s_own_command(tmp_path: Path, target: Path) -> None:
    machine = LocalMachine(tmp_path / "machine")
    done = machine.pyinfra(working_tree(target, FILE, CHECK))
    assert done.code != 0
    assert "exit status 1: \\x1b[2J\\x9b1A" in done.stderr
    assert "\x1b[2J" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code"), [(["run", "--\x1b[2J"], 64), (["\x1b[2J"], 64), (["report", "\x1b[2J\x9b"], 1), (["plan", "--dir", "/\x1b[2J"], 64)]
)  # fmt: skip
def test_wrong_arguments_are_shown_as_codes(tmp_path: Path, words: list[str], code: int) -> None:
    done = LocalMachine(tmp_path / "machine").solo(*words).expect(code)
    assert not controls(done.stdout + done.stderr)


def test_error_without_a_name_is_shown_with_a_printable_traceback(tmp_path: Path) -> None:
    """Python would print the traceback as it is."""
    machine = LocalMachine(tmp_path / "machine")
    machine.environment["PYINFRA_SOLO_ROOT"] = str(tmp_path / "a\x1b[2Jb")
    (tmp_path / "a\x1b[2Jb").write_text("a file where folders should be")
    done = machine.solo("gate", "close", "--reason", "a test")
    assert done.code == 1
    assert "Traceback (most recent call last):" in done.stderr
    assert "pyinfra-solo: It failed in a way that has no name: NotADirectoryError: " in done.stderr
    assert not controls(done.stdout + done.stderr)


def test_what_a_role_prints_is_shown_as_codes_without_secrets(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.commit(
        "import sys\nprint('printed \\x1b[2J\\x9b1A', data.token)\nsys.stderr.write(f'{data.token}\\x07\\n')",
        more={"inventories/group_data/all.py": "token = 'swordfish'\n"},
    )
    done = line.machine.solo("boot").expect(0)
    assert "\nprinted \\x1b[2J\\x9b1A [redacted]\n[redacted]\\x07\n" in done.stderr
    assert not controls(done.stderr)
