"""A full or read-only disk is named although write(2) names no file."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo import paths
from pyinfra_solo.system import durable
from pyinfra_solo.system.disk import problem

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts")


@pytest.fixture
def state() -> Iterator[Path]:
    """Put a disk of 2 MiB where a run keeps its state."""
    paths.STATE.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=20", "tmpfs", str(paths.STATE)], check=True
    )
    yield paths.STATE
    subprocess.run(["umount", str(paths.STATE)], check=True)


def raised(path: Path) -> OSError:
    with path.open("wb", buffering=0) as file:
        while os.statvfs(path).f_bavail:
            file.write(bytes(4096))
        with pytest.raises(OSError, match="No space left") as found:
            file.write(b"x")
    assert found.value.filename is None
    return found.value


def test_full_disk_of_the_state_is_named(state: Path) -> None:
    error = raised(state / "file")
    assert problem(error) == (
        f"The disk is full or read-only: {state} has 0 KiB free: No space left on device."
    )


def test_disk_without_inodes_is_named(state: Path) -> None:
    while os.statvfs(state).f_favail:
        (state / os.urandom(8).hex()).touch()
    with pytest.raises(OSError, match="No space left") as found:
        (state / "another").touch()
    found.value.filename = None
    assert f"{state} has no inode free" in (problem(found.value) or "")


def test_read_only_disk_is_named_for_a_child_s_output(state: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
    text = f"git failed\nfatal: write error: Read-only file system\n{'x' * 5}"
    assert problem(RuntimeError(text)) == (
        f"The disk is full or read-only: {state} is read-only: fatal: write error: Read-only file system."
    )


def test_file_that_cannot_be_replaced_is_named(state: Path) -> None:
    with pytest.raises(OSError) as found:  # noqa: PT011 - its file is compared
        durable.write(state / "report.json", bytes(3_000_000))
    assert problem(found.value) == (
        f"The disk is full or read-only: {state}/report.json: No space left on device."
    )
    assert not list(state.iterdir())


def test_another_error_is_none_of_the_disk() -> None:
    assert problem(FileNotFoundError(errno.ENOENT, "No such file", "/x")) is None
    assert problem(ValueError("x")) is None
