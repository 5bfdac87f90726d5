"""Take over a folder that another account has filled: root owns it, and it leads nowhere else.

Standard library only. Nothing can be swapped meanwhile: a folder belongs to root before it is read,
and what is in it is reached through its descriptor, never through a link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from pyinfra_solo.errors import TrustError

DEEPEST = 60
"""Folders below each other in a release: what walks it may recurse."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


def leads_out(target: str, depth: int) -> bool:
    """Check whether a symbolic link leads out of its tree. depth: folders between the tree and the link.

    Nothing is followed, as what lies outside can change at any time. `..` may only come first: after a
    name it would depend on where that name leads. So no chain of links that pass leads out.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    inner = [part for part in parts if part != ".."]
    up = len(parts) - len(inner)
    return target.startswith("/") or up > depth or parts[up:] != inner


def take_over(venv: Path, uid: int, pythons: Collection[str] = ()) -> None:
    """Give the folder `venv` of a tree, all of which must be the account `uid`'s, to root: 0755 and 0644.

    The account has no process any more. pythons: absolute paths that links in `bin` may name.
    Raises TrustError for a special file, a link out of the tree, a hard link, a setuid or setgid bit,
    another owner, or a file that is open for writing; OSError.
    """
    descriptor = os.open(venv, _FLAGS | os.O_DIRECTORY)
    try:
        _TakeOver(uid, {(venv / "bin", target) for target in pythons}).take(descriptor, venv, 1)
    finally:
        os.close(descriptor)


class _TakeOver:
    def __init__(self, uid: int, allowed: Collection[tuple[Path, str]]) -> None:
        self._uid, self._allowed = uid, allowed

    def take(self, descriptor: int, path: Path, depth: int) -> None:
        """Take a folder or a regular file. depth: folders between it and the tree, for a folder with itself."""
        about = os.fstat(descriptor)
        self._check(about, path)
        is_folder = stat.S_ISDIR(about.st_mode)
        os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, 0o755 if is_folder or about.st_mode & 0o100 else 0o644)
        for name in _ACLS:
            with suppress(OSError):  # there is none, or this file system has no such thing
                os.removexattr(descriptor, name)
        if not is_folder:
            _refuse_writers(descriptor, path)
            return
        if depth > DEEPEST:
            raise _refusal(path, f"is more than {DEEPEST} folders deep")
        for entry in os.listdir(descriptor):
            self._take_entry(descriptor, entry, path / entry, depth)

    def _take_entry(self, parent: int, name: str, path: Path, depth: int) -> None:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(about.st_mode):
            self._check(about, path)
            os.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)
            target = os.readlink(name, dir_fd=parent)
            if leads_out(target, depth) and (path.parent, target) not in self._allowed:
                raise _refusal(path, "is a link that leads out of the release")
            return
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
            raise _refusal(path, "is a device, a socket or a pipe")
        descriptor = os.open(name, _FLAGS, dir_fd=parent)
        try:
            self.take(descriptor, path, depth + 1)
        finally:
            os.close(descriptor)

    def _check(self, about: os.stat_result, path: Path) -> None:
        if about.st_uid != self._uid:
            raise _refusal(path, f"belongs to the account {about.st_uid}")
        if not stat.S_ISDIR(about.st_mode) and about.st_nlink != 1:
            raise _refusal(path, "is a hard link")
        if not stat.S_ISLNK(about.st_mode) and about.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise _refusal(path, "has a setuid or setgid bit")


def _refuse_writers(descriptor: int, path: Path) -> None:
    """Refuse a file that a process has open for writing, or mapped: it could still change it.

    The kernel gives no read lease on such a file (fcntl(2), F_SETLEASE). Closing ends the lease.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise OSError(error.errno, f"no read lease: {error.strerror}", str(path)) from error
        raise _refusal(path, "is open for writing in another process") from error


def _refusal(path: Path, problem: str) -> TrustError:
    return TrustError(f"{path} {problem}. Remove the package that makes it.")
