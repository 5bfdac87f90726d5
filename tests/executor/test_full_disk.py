"""A disk that is full or read-only is named by the file that could not be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo.errors import ConvergeError
from tests.support.line import failed, working_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
PUT = 'files.put(name="it is put", src=StringIO("x" * 2_000_000), dest=f"{data.target}/disk/file")'
MADE = """
def call():
    with open(f"{data.target}/disk/file", "wb", buffering=0) as opened:
        while True:
            opened.write(bytes(100_000))
python.call(name="it is called", function=call)
"""


@pytest.fixture
def disk(target: Path) -> Iterator[Path]:
    """Mount a disk of 1 MiB."""
    folder = target / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("old", ["", "old"])
def test_upload_to_a_full_disk_names_the_file(target: Path, disk: Path, native: bool, old: str) -> None:
    if old:
        (disk / "file").write_text(old)
    message, _ = failed(working_tree(target, PUT), ConvergeError, native=native)
    assert message == (
        f"the operation 'site | it is put' failed: The disk is full or read-only: {disk}/file: "
        "No space left on device. Make room, or make it writable."
    )


@pytest.mark.parametrize("native", [True, False])
def test_upload_to_a_read_only_disk_names_the_file(target: Path, disk: Path, native: bool) -> None:
    """It said `Command socket/SSH error: OSError(30, 'Read-only file system')`."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    message, _ = failed(working_tree(target, PUT), ConvergeError, native=native)
    assert message.endswith(f"read-only: {disk}/file: Read-only file system. Make room, or make it writable.")


def test_code_of_a_role_that_fills_a_disk_has_its_line(target: Path, disk: Path) -> None:
    """write(2) names no file, and this disk is none of the engine's."""
    message, _ = failed(working_tree(target, MADE), ConvergeError)
    assert disk.is_dir()
    assert (
        "see df(1): No space left on device. Make room, or make it writable (roles/site/__init__.py:2"
        in message
    )
