"""What only `pyinfra @local deploy.py` does; the rules of the line itself are in test_lines.py."""

import sys
from pathlib import Path

import pytest

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
