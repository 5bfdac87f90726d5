"""units/pyinfra: root executes the engine of its working tree only when nobody else could change it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.machine import ENGINE

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another account")


@pytest.fixture
def ops() -> Iterator[Path]:
    """A working tree with an engine, in a folder that only root may enter: /tmp is everybody's."""
    with tempfile.TemporaryDirectory(dir="/root") as folder:
        tree = Path(folder, "work/ops")
        (tree / "bootstrap/pyinfra_solo/units").mkdir(parents=True)
        (tree / "bootstrap/pyinfra_solo/__init__.py").touch()
        for path in (tree.parent, tree, *tree.rglob("*")):
            path.chmod(0o755)
        yield tree


def engine(folder: Path, *, find: str = "find") -> tuple[str, str]:
    """Run units/pyinfra in `folder`; return the PYTHONPATH that pyinfra gets, and stderr."""
    text = (ENGINE / "pyinfra_solo/units/pyinfra").read_text()
    text = text.replace("/opt/pyinfra-solo/runtime/bin/pyinfra", "/usr/bin/printenv PYTHONPATH #")
    text = text.replace("find ", f"{find} ")
    done = subprocess.run(
        ["dash", "-c", text], cwd=folder, capture_output=True, text=True, check=True, timeout=10,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


BAKED = "/opt/pyinfra-solo/engine"


def test_working_tree_of_root_alone_is_used(ops: Path) -> None:
    assert engine(ops) == (f"{ops}/bootstrap", "")


def test_folder_without_an_engine_uses_the_baked_one_silently(tmp_path: Path) -> None:
    assert engine(tmp_path) == (BAKED, "")


def given_away(path: Path) -> None:
    os.chown(path, NOBODY, NOBODY)


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


CHANGES: dict[str, Callable[[Path], None]] = {
    "owned by another": given_away,
    "writable for its group": lambda path: path.chmod(0o775 if path.is_dir() else 0o664),
    "writable for all": lambda path: path.chmod(0o757 if path.is_dir() else 0o646),
}
PLACES = (
    "..",
    ".",
    "bootstrap",
    "bootstrap/pyinfra_solo",
    "bootstrap/pyinfra_solo/units",
    "bootstrap/pyinfra_solo/__init__.py",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_engine_that_another_could_change_is_not_executed(
    ops: Path, place: str, change: Callable[[Path], None]
) -> None:
    path = (ops / place).resolve()
    change(path)
    used, message = engine(ops)

    assert used == BAKED
    assert f"another account may change {path}, or it is a link" in message
    assert message.startswith(f"pyinfra: {ops}/bootstrap is not used, but {BAKED}: ")


@pytest.mark.parametrize(
    "place", ["bootstrap", "bootstrap/pyinfra_solo", "bootstrap/pyinfra_solo/__init__.py"]
)
def test_engine_that_is_a_link_is_not_executed(ops: Path, place: str) -> None:
    replaced_by_a_link(ops / place)
    used, message = engine(ops)

    assert used == BAKED
    assert "or it is a link" in message


def test_folder_below_one_that_all_may_write_is_not_used() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        (Path(folder) / "bootstrap/pyinfra_solo").mkdir(parents=True)
        used, message = engine(Path(folder))

    assert used == BAKED
    assert "another account may change /tmp," in message


def test_path_with_a_colon_is_not_used(ops: Path) -> None:
    """PYTHONPATH would take it for two folders."""
    assert engine(ops.rename(ops.with_name("a:b")))[0] == BAKED


def test_engine_that_cannot_be_checked_is_not_executed(ops: Path) -> None:
    assert engine(ops, find="no-such-find")[0] == BAKED
