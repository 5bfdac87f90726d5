"""Files that come by rename: whole, with their owner and mode, or not at all.

pyinfra puts a file in one command, and its owner and mode in the next ones. So what is put waits
beside its target until something else is done; meanwhile chown and chmod of the target are done to
what waits. A new file is on disk, at the latest, before a program is run (`on_disk`): a power cut
between two native steps can leave a new name whose contents are not there yet, and by then nobody
has been told of it. What replaces a file is on disk before it does.
"""

# A Path costs as much again as the system call, for each of thousands of files.

import contextlib
import errno
import os
import re
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class _Waiting:
    beside: str
    target: str
    replaces: bool


class PendingFiles:
    """The files that one connector puts, one at a time."""

    def __init__(self) -> None:
        self.waits = False
        """Whether a file may wait for its owner and mode. Whoever says so calls `appear` at the end of the operation."""
        self._waiting: _Waiting | None = None
        self._not_on_disk: list[str] = []

    def put(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """`path` (or what it links to) holds `data`. An old file's mode, owner and extended attributes stay (flags of chattr(1) do not); a new one
        has what the umask leaves of `mode`. Raises OSError, as cp(1) would have failed."""
        self.appear()
        target = os.path.realpath(path)
        old = _old(path)
        if old and not _goes_by_rename(target, old):
            _write_into(target, data)
            return
        try:
            beside = _beside(target, data, old, mode)
        except OSError as error:
            if error.errno not in _NO_PLACE_BESIDE:
                raise
            _write_into(target, data, None if old else mode)
            return
        self._waiting = _Waiting(beside, target, replaces=old is not None)
        if not self.waits:
            self.appear()

    def instead_of(self, path: str) -> str:
        """Where the file is that `path` will be: what chown and chmod are to be done to."""
        if self._waiting and os.path.realpath(path) == self._waiting.target:
            return self._waiting.beside
        return path

    def appear(self) -> None:
        """What waits takes its place. Raises OSError; then the old file is still there."""
        waiting, self._waiting = self._waiting, None
        if not waiting:
            return
        try:
            if waiting.replaces:
                _sync(waiting.beside)
            else:
                self._not_on_disk.append(waiting.target)
            try:
                os.rename(waiting.beside, waiting.target)
            except OSError as error:
                # Something is mounted on it, such as on a container's /etc/hosts; or its folder keeps what it
                # has (chattr(1), +a).
                if error.errno not in (errno.EBUSY, errno.EPERM):
                    raise
                _move_into(waiting.beside, waiting.target)
        except BaseException:
            Path(waiting.beside).unlink(missing_ok=True)
            raise

    def on_disk(self) -> None:
        """All that was put is in its place, and will be there after a power cut. Raises OSError."""
        self.appear()
        names, self._not_on_disk = self._not_on_disk, []
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
"""Files, from which on one sync of all costs less than one of each."""


def _old(path: str) -> os.stat_result | None:
    """What is at `path`; None when nothing is. Raises OSError for what cp(1) would not create or not open."""
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
            if error.errno != errno.ETXTBSY:  # a program that runs; it keeps the old file
                raise
    return old


def _goes_by_rename(target: str, old: os.stat_result) -> bool:
    return stat.S_ISREG(old.st_mode) and old.st_nlink == 1 and not target.startswith(("/proc/", "/sys/"))


_NO_PLACE_BESIDE = (errno.EACCES, errno.EPERM, errno.EROFS)
"""A folder that may not be written, an owner that this process cannot give: the file itself may do."""


_NEW = re.compile(r"\.pyinfra-solo-(\d+)-[0-9a-f]{8}\.new", re.ASCII)


@cache
def _sweep(folder: str) -> None:
    """What killed runs left here, which nobody else would ever take away."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if (left := _NEW.fullmatch(name)) and not os.path.exists(f"/proc/{left[1]}"):
                os.unlink(f"{folder}/{name}")


def _beside(target: str, data: bytes, old: os.stat_result | None, mode: int) -> str:
    """A name that nobody can foresee: the folder may be another's, and another run may write there."""
    folder = target.rpartition("/")[0]
    _sweep(folder or "/")
    beside = f"{folder}/.pyinfra-solo-{os.getpid()}-{os.urandom(4).hex()}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(beside, flags, 0o600 if old else mode)
    try:
        with open(descriptor, "wb", buffering=0) as opened:
            view = memoryview(data)
            while view:
                view = view[opened.write(view) :]
            if old:
                os.fchown(descriptor, old.st_uid, old.st_gid)
                _same_attributes(target, descriptor)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return beside


_OF_THE_CONTENTS = {"security.capability", "security.ima", "security.evm"}
"""A write takes the first away (capabilities(7)); the others are digests and signatures."""


def _same_attributes(old: str, new: int) -> None:
    """ACLs and labels are extended attributes (acl(5), xattr(7)), and a folder may give ACLs to what is new
    in it. Raises OSError."""
    try:
        wanted = set(os.listxattr(old)) - _OF_THE_CONTENTS
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return
    for name in set(os.listxattr(new)) - wanted - _OF_THE_CONTENTS:
        os.removexattr(new, name)
    for name in wanted:
        os.setxattr(new, name, os.getxattr(old, name))


def _move_into(beside: str, target: str) -> None:
    about = os.stat(beside)
    _write_into(target, Path(beside).read_bytes(), None if os.path.exists(target) else 0o600)
    os.chown(target, about.st_uid, about.st_gid)
    os.chmod(target, stat.S_IMODE(about.st_mode))
    with contextlib.suppress(PermissionError):
        os.unlink(beside)


def _write_into(target: str, data: bytes, new: int | None = None) -> None:
    """In place, as cp(1) does: for a file of several names, and for what is no file. new: the mode of a file
    that is not there. A pipe that nobody reads is an error, and is not waited for."""
    flags = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(target, flags) if new is None else os.open(target, flags | os.O_CREAT, new)
    os.set_blocking(descriptor, True)
    with open(descriptor, "wb") as opened:
        opened.write(data)
        opened.flush()
        with contextlib.suppress(OSError):  # a pipe or a device has nothing to sync
            os.fsync(descriptor)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
