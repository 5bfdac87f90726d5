"""Compare folders, by all that they hold or by what was touched, and make deep ones."""

import os
from pathlib import Path
from typing import Any


def listing(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Map each path below a folder to its kind and mode, owner, and content or target.

    Equal listings are equal trees; inode numbers and times are left out.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content: Any = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (oct(about.st_mode), about.st_uid, about.st_gid, content)
    return found


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Map each path below a folder to inode and mtime: equal ones were not touched."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def deep_folder(top: Path) -> int:
    """Make folders in folders, deeper than a path may be; return a descriptor of the last."""
    folder = os.open(top, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("deeper", dir_fd=folder)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    return folder
