"""Evaluation of all operations before the first change: a mistake in a later one changes nothing."""

from pathlib import Path

import pytest

from pyinfra_solo.errors import ConvergeError, DataError, SoloError
from tests.support.line import Line, converged, failed, working_tree

FIRST = 'files.put(name="first", src=StringIO("changed"), dest=f"{data.target}/first")\n'
TEMPLATE = 'files.template(name="later", src=StringIO("{{ nothing }}"), dest=f"{data.target}/later")\n'
CUSTOM = """
from pyinfra.api import operation

@operation()
def own():
    CODE

own(name="later")
"""
IMPORTS = "from pyinfra.facts.files import Directory, File\nfrom pyinfra_solo.operations import validated\n"
MISTAKES = {
    "undefined": (TEMPLATE, DataError, "'nothing' is undefined"),
    "undefined after a fact": (
        TEMPLATE.replace("{{ nothing }}", "{% set x = host.get_fact(fact, path='/') %}{{ nothing }}").replace(
            "dest=", "fact=Directory, dest="
        ),
        DataError,
        "'nothing' is undefined",
    ),
    "syntax": (TEMPLATE.replace("}}", ""), DataError, "later"),
    "validated": (
        'validated.template(name="later", src="missing.j2", dest=f"{data.target}/x", validate="true")\n',
        DataError,
        "missing.j2",
    ),
    "no file": ('files.put(name="later", src="missing", dest="/x")\n', ConvergeError, "No such file"),
    "name": (CUSTOM.replace("CODE", 'yield f"echo {nothing}"'), ConvergeError, "NameError"),
    "argument": ('files.directory(name="later", path=7)\n', ConvergeError, "later"),
    "second command": (
        'files.put(name="later", src=StringIO(""), dest=f"{data.target}/x", user="a", mode="644")\n'
        + TEMPLATE.replace('"later"', '"last"'),
        DataError,
        "'nothing' is undefined",
    ),
}


@pytest.mark.parametrize(("later", "kind", "reason"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistake_in_a_later_operation_changes_nothing(
    target: Path, later: str, kind: type[SoloError], reason: str
) -> None:
    message, run = failed(working_tree(target, IMPORTS + FIRST + later), kind)
    assert reason in message
    assert list(target.iterdir()) == []
    first, last = run.report.operations
    assert (first.name, first.changed, first.failed) == ("site | first", False, False)
    assert last.failed
    assert last.name in ("site | later", "site | last")


SAYS = "says = server.shell(name='second', commands='echo changed')\n"
PUT_SAID = (
    'files.put(name="later", src=StringIO("changed"), dest=f"{data.target}/later", _if=lambda: CONDITION)\n'
)
FILLED = """
found = {}
python.call(name="second", function=lambda: found.update(word="changed"))
"""
DEPENDS = {
    "a fact": CUSTOM.replace(
        "CODE",
        "yield f\"echo {host.get_fact(File, path=data.target + str('/first'))['size']} >{data.target}/later\"",
    ).replace("from pyinfra.api", "from pyinfra import host\nfrom pyinfra.api"),
    "a fact in a template": (
        'files.template(name="later", src=StringIO("{{ host.get_fact(fact, path=first).size }}"), fact=File, '
        'first=f"{data.target}/first", dest=f"{data.target}/later")\n'
    ),
    "a file": 'files.put(name="later", src=f"{data.target}/first", dest=f"{data.target}/later")\n',
    "a folder": (
        'server.shell(name="second", commands=f"mkdir {data.target}/from; cp {data.target}/first {data.target}/from/later")\n'
        'files.sync(name="later", src=f"{data.target}/from", dest=data.target)\n'
    ),
    "output": SAYS + CUSTOM.replace("CODE", 'yield f"echo {says.stdout_lines[0]} >{data.target}/later"'),
    "output in a condition": SAYS + PUT_SAID.replace("CONDITION", "says.stdout_lines[0] == 'changed'"),
    "output in a template": SAYS
    + 'files.template(name="later", src=StringIO("{{ says.stdout_lines[0] }}"), says=says, dest=f"{data.target}/later")\n',
    "a call in a template": FILLED
    + 'files.template(name="later", src=StringIO("{{ found.word }}"), found=found, dest=f"{data.target}/later")\n',
    "a call in a condition": FILLED + PUT_SAID.replace("CONDITION", "found['word'] == 'changed'"),
    "an operation that waits": CUSTOM.replace(
        "CODE",
        """
    if not Path(f"{data.target}/first").exists():
        raise OSError("not there yet")
    yield f"cp {data.target}/first {data.target}/later\"""",
    ),
    "a module": 'files.put(name="second", src=StringIO("WORD = 7"), dest=f"{data.target}/put_before.py")\n'
    "__import__('sys').path.append(data.target)\n"
    + CUSTOM.replace("CODE", "from put_before import WORD\n    yield f'echo {WORD} >{data.target}/later'"),
    "a failure that is ignored": (
        "tried = server.shell(name='second', commands='false', _ignore_errors=True)\n"
        + TEMPLATE.replace("later", "never").replace(")\n", ", _if=tried.did_succeed)\n")
        + PUT_SAID.replace("CONDITION", "True")
    ),
    "an exception that is ignored": (
        "python.call(name='second', function=lambda: 1 / 0, _ignore_errors=True)\n"
        + PUT_SAID.replace("CONDITION", "True")
    ),
}


@pytest.mark.parametrize("later", DEPENDS.values(), ids=list(DEPENDS))
def test_operation_that_needs_an_earlier_change_is_run(target: Path, later: str) -> None:
    converged(working_tree(target, IMPORTS + FIRST + later))
    assert (target / "later").read_text().strip() in ("7", "changed")


def test_plan_says_what_waits_for_earlier_operations(target: Path) -> None:
    root = working_tree(target, FIRST + DEPENDS["a file"] + DEPENDS["output in a template"])
    diffs = [one.diff[0] for one in converged(root, mode="plan").operations if one.name == "site | later"]
    assert diffs[0] == f"(cannot be planned before earlier operations have run: No such file: {target}/first)"
    assert "list object has no element 0" in diffs[1]
    assert not list(target.iterdir())


def test_own_code_after_a_command_is_run_once(target: Path) -> None:
    code = 'yield "true"; open(f"{data.target}/notes", "a").write("noted")'
    converged(working_tree(target, FIRST + CUSTOM.replace("CODE", code)))
    assert (target / "notes").read_text() == "noted"


def test_condition_on_a_later_change_is_evaluated(target: Path) -> None:
    operations = (
        FIRST
        + 'second = files.put(name="second", src=StringIO("x"), dest=f"{data.target}/second")\n'
        + 'server.shell(name="third", commands=f"touch {data.target}/third", _if=second.did_change)\n'
    )
    converged(working_tree(target, operations))
    assert sorted(path.name for path in target.iterdir()) == ["first", "second", "third"]


def test_machine_in_service_stays_so_after_a_mistake(line: Line) -> None:
    line.put_in_service()
    line.commit(FIRST + TEMPLATE)
    line.machine.solo("run").expect(DataError.exit_code)
    assert line.machine.in_service
    assert not (line.target / "first").exists()
