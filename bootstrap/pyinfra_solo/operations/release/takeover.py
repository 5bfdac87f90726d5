"""Take over a folder that another account has filled: root owns it, and it leads nowhere else.

Standard library only. Nothing can be swapped meanwhile: a folder belongs to root before it is read,
and what is in it is reached through its descriptor, never through a link.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from pyinfra_solo.errors import TrustError

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEEPEST = 60
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


def take_over(folder: Path, uid: int) -> None:
    """Give the tree `folder`, all of which must be the account `uid`'s, to root: 0755 and 0644.

    The account has no process any more. Raises TrustError for a special file, a hard link, a setuid or
    setgid bit, or another owner; OSError.
    """
    descriptor = os.open(folder, _FLAGS | os.O_DIRECTORY)
    try:
        _take(descriptor, uid, folder, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, uid: int, path: Path, depth: int) -> None:
    about = os.fstat(descriptor)
    _check(about, uid, path)
    os.fchown(descriptor, 0, 0)
    os.fchmod(descriptor, 0o755 if stat.S_ISDIR(about.st_mode) or about.st_mode & 0o100 else 0o644)
    for name in _ACLS:
        with suppress(OSError):  # there is none, or this file system has no such thing
            os.removexattr(descriptor, name)
    if not stat.S_ISDIR(about.st_mode):
        return
    if depth > _DEEPEST:
        raise TrustError(f"{path} is more than {_DEEPEST} folders deep. Remove the package that makes it.")
    for entry in os.listdir(descriptor):
        _take_entry(descriptor, entry, uid, path / entry, depth + 1)


def _take_entry(parent: int, name: str, uid: int, path: Path, depth: int) -> None:
    about = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISLNK(about.st_mode):
        _check(about, uid, path)
        os.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)
        return
    if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
        raise TrustError(f"{path} is a device, a socket or a pipe. Remove the package that makes it.")
    descriptor = os.open(name, _FLAGS, dir_fd=parent)
    try:
        _take(descriptor, uid, path, depth)
    finally:
        os.close(descriptor)


def _check(about: os.stat_result, uid: int, path: Path) -> None:
    problem = ""
    if about.st_uid != uid:
        problem = f"belongs to the account {about.st_uid}"
    elif not stat.S_ISDIR(about.st_mode) and about.st_nlink != 1:
        problem = "is a hard link"
    elif not stat.S_ISLNK(about.st_mode) and about.st_mode & (stat.S_ISUID | stat.S_ISGID):
        problem = "has a setuid or setgid bit"
    if problem:
        raise TrustError(f"{path} {problem}. Remove the package that makes it.")


def link_out(tree: Path, python: str | None = None) -> str:
    """Return the first symbolic link in `tree` that leads out of it, by its path in the tree, or ''.

    An absolute link leads out: the tree will be renamed. python: a program that links may name.
    """
    root = tree.resolve()
    for folder, folders, files in os.walk(tree):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if not path.is_symlink():
                continue
            end = os.path.realpath(path)  # Path.resolve() raises an error for a loop
            if python and end == os.path.realpath(python):
                continue
            if path.readlink().is_absolute() or not Path(end).is_relative_to(root):
                return str(path.relative_to(tree))
    return ""
