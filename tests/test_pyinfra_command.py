"""What only `pyinfra @local deploy.py` does; the rules of the line itself are in test_lines.py."""

import sys
from pathlib import Path

import pytest

from pyinfra_solo.errors import DataError
from tests.support.files import listing, stamps
from tests.support.line import FILE, working_tree
from tests.support.machine import LocalMachine


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    return LocalMachine(tmp_path / "machine")


def test_deploy_py_that_cannot_be_read_leaves_the_gate(machine: LocalMachine, target: Path) -> None:
    """pyinfra fails before it calls the line."""
    root = working_tree(target, FILE)
    machine.pyinfra(root).expect(0)
    (root / "deploy.py").write_text("def (\n")
    assert machine.pyinfra(root).code != 0
    assert machine.in_service


def test_dry_run_touches_neither_machine_nor_gate(machine: LocalMachine, target: Path) -> None:
    machine.pyinfra(working_tree(target, FILE)).expect(0)
    machine.configure(limits='drain = "always"')
    root = working_tree(target, FILE.replace("data.text", "'other'"))
    before = listing(target), stamps(target), stamps(machine.run_folder / "gate")
    machine.pyinfra(root, "--dry").expect(0)
    assert (listing(target), stamps(target), stamps(machine.run_folder / "gate")) == before


def test_lock_is_held_while_operations_run(machine: LocalMachine, target: Path) -> None:
    """pyinfra calls the line only to declare; the lock is freed when the process ends."""
    machine.configure(limits="lock = 0.3")
    second = f"{sys.executable} -m pyinfra_solo run"
    root = working_tree(
        target,
        f"server.shell(name='a second run', commands={second!r} + f' 2> {{data.target}}/error; echo $? > {{data.target}}/code')",
    )
    machine.pyinfra(root).expect(0)
    assert (target / "code").read_text() == "20\n"
    assert "Another run is at work: run " in (target / "error").read_text()
    assert machine.in_service


def test_mistake_in_a_later_operation_changes_nothing(machine: LocalMachine, target: Path) -> None:
    machine.pyinfra(working_tree(target, FILE)).expect(0)
    later = 'files.template(name="later", src=StringIO("{{ nothing }}"), dest=f"{data.target}/later")\n'
    skipped = later.replace("later", "skipped").replace(")\n", ", _if=lambda: False)\n")
    first = 'files.put(name="first", src=StringIO(""), dest=f"{data.target}/first")\n'
    done = machine.pyinfra(working_tree(target, f"{first}{skipped}{later}")).expect(DataError.exit_code)
    assert "A template of the operation 'site | later' is invalid" in done.stderr
    assert [path.name for path in target.iterdir()] == ["file"]
    assert machine.in_service


EXITS = {
    "in a role": ("__import__('sys').exit(0)", True),
    "in a role after operations": (FILE + "\n__import__('sys').exit(0)", True),
    "in an operation before any change": ("python.call(name='it exits', function=lambda: __import__('sys').exit(0))", False),
    "in an operation after a change": (
        FILE.replace("data.text", "'other'") + "\npython.call(name='it exits', function=lambda: __import__('sys').exit(0))", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("operations", "in_service"), EXITS.values(), ids=EXITS)
@pytest.mark.parametrize("drain", ["on-change", "never"])
def test_role_that_exits_with_0_is_a_failure(
    machine: LocalMachine, target: Path, operations: str, in_service: bool, drain: str
) -> None:
    """pyinfra ends with exit status 0 then, as it does when it is interrupted."""
    machine.pyinfra(working_tree(target, FILE)).expect(0)
    machine.configure(limits=f'drain = "{drain}"')
    done = machine.pyinfra(working_tree(target, operations)).expect(1)
    assert "deploy.py did not come to its end, so this machine is not judged" in done.stderr
    assert machine.in_service == in_service


def test_deploy_py_that_exits_while_its_first_operation_runs_closes_the_gate(
    machine: LocalMachine, target: Path
) -> None:
    """It has no gate(), which would have noticed the change, and no operation has ended."""
    root = working_tree(target, FILE)
    machine.pyinfra(root).expect(0)
    (root / "deploy.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom pyinfra.operations import python\n"
        "from pyinfra_solo.deploy import roles\nroles()\n"
        f"def change():\n    Path({str(target)!r}, 'file').write_text('half')\n    sys.exit(0)\n"
        "python.call(name='it changes', function=change)\n"
    )
    machine.pyinfra(root).expect(1)
    assert not machine.in_service


def test_role_whose_module_exits_with_0_is_a_failure(machine: LocalMachine, target: Path) -> None:
    root = working_tree(target, FILE)
    machine.pyinfra(root).expect(0)
    (root / "roles/site/__init__.py").write_text("import sys\nsys.exit(0)\n")
    done = machine.pyinfra(root).expect(1)
    assert "roles/site/__init__.py cannot be loaded" in done.stderr
    assert machine.in_service


@pytest.mark.parametrize("word", ["--dry", "--debug-operations"])
def test_dry_run_of_a_role_that_exits_with_0_is_a_failure(
    machine: LocalMachine, target: Path, word: str
) -> None:
    machine.pyinfra(working_tree(target, FILE), word).expect(0)
    machine.pyinfra(working_tree(target, "__import__('sys').exit(0)"), word).expect(1)


def test_host_data_is_that_of_a_converge(machine: LocalMachine, target: Path) -> None:
    """By @local pyinfra reads no group data: the folder is beside the stage's inventory."""
    put = 'files.put(name="data", src=StringIO(f"{host.data.text} {hasattr(host.data, \'token\')}"), dest=f"{data.target}/file")'
    groups = {"inventories/group_data/all.py": "text = 'of all'\n"}
    machine.pyinfra(working_tree(target, put, **groups)).expect(0)
    assert (target / "file").read_text() == "of all False"
