"""Limit what a release adds to the disk: the commit and its packages decide that. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pyinfra_solo.clients.git_core import Repository
from pyinfra_solo.errors import DataError

_BLOCK = 4096
"""Bytes that a small file or a folder takes."""


def free(folder: Path) -> int:
    """Return the bytes that other accounts than root can still write: root must not take its reserve."""
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


def check_tree(repository: Repository, sha: str, folder: Path, most: int) -> None:
    """Raise DataError for a commit whose files take more than `most` bytes, or than are free at `folder`."""
    # To the next block, and one block for its folder.
    size = sum(one + 2 * _BLOCK - one % _BLOCK for one in repository.sizes(sha))
    if size > most:
        raise DataError(
            f"the files of the commit take {_mib(size)}, and the limit is {_mib(most)}. "
            "Remove some and commit, or raise max_bytes of the release."
        )
    if size > (left := free(folder)):
        raise DataError(f"the files of the commit take {_mib(size)}, and {folder} has {_mib(left)} free.")


def watch(folder: Path, most: int) -> Callable[[], None]:
    """Make a function that raises DataError once the disk of `folder` has `most` bytes less than now, or none.

    The disk is asked: the account of a build can hide what it writes in files without a name.
    """
    before = free(folder)

    def check() -> None:
        left = free(folder)
        if before - left > most:
            raise DataError(
                f"the disk of {folder} has {_mib(before - left)} less than before, and the limit is {_mib(most)}. "
                "Raise max_bytes of the release if its packages need that."
            )
        if before and not left:
            raise DataError(f"it has filled the disk of {folder}.")

    return check


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
