"""Write files by rename: a file appears whole, with its owner and mode, or not at all.

pyinfra uploads a file in one command, and sets its owner and mode in the next ones. So the upload goes
to a temporary file beside the target; chown and chmod of the target change the temporary file; then
it is renamed over the target.

An old file is replaced only by a file that is on disk already. A new file is synced at the latest
before a program runs (`sync`): until then a power cut can leave its name without its contents, but
no program has seen it.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class _Pending:
    temporary: str
    target: str
    replaces: bool


class PendingFiles:
    """The files that one connector writes, one at a time."""

    def __init__(self) -> None:
        self.defer_rename = False
        """True: a file stays pending for chown and chmod. Call `rename_into_place` afterwards."""
        self._pending: _Pending | None = None
        self._unsynced: list[str] = []

    def put(self, path: str, data: bytes) -> None:
        """Write `data` to the file `path`, or to the file that it links to.

        An old file's mode, owner and extended attributes stay, flags of chattr(1) do not. A new file is for
        its owner alone. Raises OSError where cp(1) would fail.
        """
        self.rename_into_place()
        target = os.path.realpath(path)
        old = _old(path)
        if old and not _goes_by_rename(target, old):
            _write_into(target, data)
            return
        try:
            temporary = _write_temporary(target, data, old)
        except OSError as error:
            if error.errno not in _NO_TEMPORARY:
                raise
            _write_into(target, data, make=not old)
            return
        self._pending = _Pending(temporary, target, replaces=old is not None)
        if not self.defer_rename:
            self.rename_into_place()

    def staged_path(self, path: str) -> str:
        """Return the path to change instead of `path`: the pending file's, or `path` itself."""
        if self._pending and os.path.realpath(path) == self._pending.target:
            return self._pending.temporary
        return path

    def rename_into_place(self) -> None:
        """Rename the pending file over its target. Raises OSError; then the old file is still there."""
        pending, self._pending = self._pending, None
        if not pending:
            return
        try:
            if pending.replaces:
                _sync(pending.temporary)
            else:
                self._unsynced.append(pending.target)
            try:
                os.rename(pending.temporary, pending.target)
            except OSError as error:
                # A mount point, such as a container's /etc/hosts; or an append-only folder (chattr(1), +a).
                if error.errno not in (errno.EBUSY, errno.EPERM):
                    raise
                _move_into(pending.temporary, pending.target)
        except BaseException:
            Path(pending.temporary).unlink(missing_ok=True)
            raise

    def sync(self) -> None:
        """Rename the pending file, and make all written files survive a power cut. Raises OSError."""
        self.rename_into_place()
        names, self._unsynced = self._unsynced, []
        if len(names) > _MANY:
            os.sync()  # sync(2) waits for it on Linux
            return
        for name in filter(os.path.isfile, names):
            with contextlib.suppress(FileNotFoundError):
                _sync(name)
        for folder in {os.path.dirname(name) for name in names}:
            with contextlib.suppress(OSError):
                _sync(folder)


_MANY = 16
"""Files: from here on one sync(2) costs less than an fsync(2) of each."""


def _old(path: str) -> os.stat_result | None:
    """Return the status of `path`, or None for no file. Raises OSError where cp(1) could not write it."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        if path.endswith("/") or os.path.islink(path):
            raise
        return None
    if stat.S_ISREG(old.st_mode):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ETXTBSY:  # a running program keeps the old file
                raise
    return old


def _goes_by_rename(target: str, old: os.stat_result) -> bool:
    return stat.S_ISREG(old.st_mode) and old.st_nlink == 1 and not target.startswith(("/proc/", "/sys/"))


_NO_TEMPORARY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""The folder is not writable, or this process cannot give the old owner: try the file itself."""


_NEW = re.compile(r"\.pyinfra-solo-(\d+)-[0-9a-f]{8}\.new", re.ASCII)


@cache
def _sweep(folder: str) -> None:
    """Remove the temporary files of killed runs."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if (left := _NEW.fullmatch(name)) and not os.path.exists(f"/proc/{left[1]}"):
                os.unlink(f"{folder}/{name}")


def _write_temporary(target: str, data: bytes, old: os.stat_result | None) -> str:
    """Write a temporary file for `target` and return its path. Raises OSError.

    Its name is random: another account, or another run, may write into the folder too.
    """
    folder = target.rpartition("/")[0]
    _sweep(folder or "/")
    temporary = f"{folder}/.pyinfra-solo-{os.getpid()}-{os.urandom(4).hex()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as opened:
            view = memoryview(data)
            while view:
                view = view[opened.write(view) :]
            if old:
                os.fchown(descriptor, old.st_uid, old.st_gid)
                _copy_attributes(target, descriptor)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return temporary


_BOUND_TO_CONTENTS = {"security.capability", "security.ima", "security.evm"}
"""Not copied: a write removes the first (capabilities(7)); the others are digests and signatures."""


def _copy_attributes(old: str, new: int) -> None:
    """Give the new file the old one's ACLs and labels, and no others (acl(5), xattr(7)). Raises OSError.

    A folder's default ACL applies to files that are created in it.
    """
    try:
        wanted = set(os.listxattr(old)) - _BOUND_TO_CONTENTS
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return
    for name in set(os.listxattr(new)) - wanted - _BOUND_TO_CONTENTS:
        os.removexattr(new, name)
    for name in wanted:
        os.setxattr(new, name, os.getxattr(old, name))


def _move_into(temporary: str, target: str) -> None:
    status = os.stat(temporary)
    _write_into(target, Path(temporary).read_bytes(), make=not os.path.exists(target))
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    with contextlib.suppress(PermissionError):
        os.unlink(temporary)


def _write_into(target: str, data: bytes, *, make: bool = False) -> None:
    """Write in place, as cp(1) does: a file with several names, a device, a pipe. Raises OSError.

    make: a file that is not there. A pipe without a reader is an error, not a wait.
    """
    flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(target, flags | os.O_CREAT if make else flags, 0o600)
    os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as opened:
        opened.write(data)
        opened.flush()
        with contextlib.suppress(OSError):  # fsync(2) fails on a pipe or a device
            os.fsync(descriptor)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
