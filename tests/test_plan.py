"""The command plan: what a run would change."""

import json
from pathlib import Path

import pytest

from tests.support.files import listing, stamps
from tests.support.line import Line, working_tree
from tests.support.machine import REPOSITORY, LocalMachine

OPERATIONS = """
    files.put(name="the file is there", src=StringIO(f"{data.text} {data.token}\\n"), dest=f"{data.target}/file", mode="600")
    files.directory(name="a folder is there", path=f"{data.target}/folder")
    server.shell(name="it is done", commands=f"touch {data.target}/done")
"""


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    return LocalMachine(tmp_path / "machine")


def test_plan_of_a_working_tree_hides_secrets_and_touches_nothing(
    machine: LocalMachine, target: Path
) -> None:
    """Neither the machine, nor the tree, nor the gate, nor a report."""
    tree = working_tree(target, OPERATIONS)
    (target / "file").write_text("old\n")
    before = listing(target), stamps(target), listing(tree), listing(machine.root)
    result = machine.solo("plan", "--dir", str(tree), "--data", "token=hunter2").expect(2)
    assert (listing(target), stamps(target), listing(tree)) == before[:3]
    assert {path for path in listing(machine.root) if not path.startswith("run")} == set(before[3])
    assert result.stdout.splitlines() == [
        "~ site | the file is there",
        f"    {target}/file differs by +1 -1 lines (not shown: it holds a secret)",
        f"    $ chmod 600 {target}/file",
        "~ site | a folder is there",
        f"    $ mkdir -p {target}/folder",
        "~ site | it is done",
        f"    $ touch {target}/done",
        "3 operations would change this machine, 0 would not.",
    ]
    assert "hunter2" not in result.stdout + result.stderr


def test_plan_without_a_change_has_exit_status_0(machine: LocalMachine, target: Path) -> None:
    tree = working_tree(target, 'files.directory(name="a folder", path=data.target)')
    result = machine.solo("plan", "--dir", str(tree)).expect(0)
    assert result.stdout == "0 operations would change this machine, 1 would not.\n"


def test_plan_without_a_folder_is_of_the_wanted_commit(tmp_path: Path) -> None:
    line = Line(tmp_path)
    sha = line.commit(OPERATIONS)
    report = json.loads(line.machine.solo("plan", "--json").expect(2).stdout)
    assert (report["sha"], report["outcome"]) == (sha, "planned")
    assert [one["changed"] for one in report["operations"]] == [True, True, True]
    assert list(line.target.iterdir()) == []
    assert not (line.machine.state / "last-run.json").exists()


def test_plan_that_fails_has_the_errors_exit_status(machine: LocalMachine, target: Path) -> None:
    tree = working_tree(target, OPERATIONS)
    machine.solo("plan", "--dir", str(tree), "--data", "txet=x").expect(13)
    machine.solo("plan", "--dir", str(tree), "--role", "stie").expect(12)
    (tree / "deploy.py").write_text("def (\n")
    machine.solo("plan", "--dir", str(tree)).expect(1)


@pytest.mark.parametrize("stage", sorted(path.stem for path in REPOSITORY.glob("inventories/*.py")))
@pytest.mark.parametrize("role", sorted(path.parent.name for path in REPOSITORY.glob("roles/*/__init__.py")))
def test_roles_of_this_repository_can_be_planned_on_a_blank_machine(
    machine: LocalMachine, role: str, stage: str
) -> None:
    """What a commit would do, before any machine does it; it needs no root and no machine."""
    machine.config.unlink()
    before = sources()
    words = ["--dir", str(REPOSITORY), "--role", role, "--stage", stage, "--blank"]
    result = machine.solo("plan", *words).expect(2)
    assert "operations would change this machine" in result.stdout
    assert "Traceback" not in result.stderr
    assert sources() == before


def sources() -> dict[str, object]:
    """List the files of this repository's roles, without Python's caches."""
    files = listing(REPOSITORY / "roles")
    return {name: entry for name, entry in files.items() if "__pycache__" not in name}
