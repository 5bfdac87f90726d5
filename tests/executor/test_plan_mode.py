"""A plan: the executor evaluates operations and changes nothing; `blank` plans a machine with nothing on it."""

from pathlib import Path

import pytest

from pyinfra_solo.protocol import OperationEnded
from tests.support.line import converged, working_tree

OPERATIONS = """
    files.put(name="a text", src=StringIO("one\\ntwo\\n"), dest=f"{data.target}/text")
    files.put(name="a binary", src=StringIO("\\0"), dest=f"{data.target}/binary")
    files.directory(name="a folder", path=f"{data.target}/folder")
    put = files.put(name="a config", src=StringIO("x"), dest=f"{data.target}/config")
    server.shell(name="reloaded", commands="echo reload", _if=put.did_change)
    server.shell(name="never", commands="false", _if=lambda: False)
"""


@pytest.fixture
def target(open_folder: Path) -> Path:
    """Make a folder that others may enter: the contents of other files are not shown."""
    folder = open_folder / "target"
    folder.mkdir()
    return folder


@pytest.fixture
def root(target: Path) -> Path:
    return working_tree(target, OPERATIONS)


def plan(root: Path, mode: str = "plan") -> dict[str, OperationEnded]:
    return {one.name.removeprefix("site | "): one for one in converged(root, mode=mode).operations}


def test_plan_shows_a_diff_of_files_and_each_command(root: Path, target: Path) -> None:
    (target / "text").write_text("one\nthree\n")
    planned = plan(root)
    assert planned["a text"].diff[:2] == [f"--- {target}/text", f"+++ {target}/text"]
    assert planned["a text"].diff[3:] == [" one", "-three", "+two"]
    assert planned["a binary"].diff == [f"Binary file {target}/binary differs"]
    assert planned["a folder"].diff == [f"$ mkdir -p {target}/folder"]
    assert planned["a config"].diff[0] == "--- /dev/null"
    assert planned["reloaded"].diff == ["$ echo reload"]
    assert not planned["never"].changed
    assert (target / "text").read_text() == "one\nthree\n"
    assert [path.name for path in target.iterdir()] == ["text"]


def test_plan_skips_what_depends_on_a_change_not_made(root: Path, target: Path) -> None:
    (target / "config").write_text("x")
    assert not plan(root)["reloaded"].changed


def test_plan_of_a_blank_machine_ignores_this_machines_files(root: Path, target: Path) -> None:
    (target / "text").write_text("one\ntwo\n")
    assert not plan(root)["a text"].changed
    blank = plan(root, "blank")["a text"]
    assert blank.changed
    assert "--- /dev/null" in blank.diff
