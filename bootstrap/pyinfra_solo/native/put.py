"""Files that come by rename: whole, with their owner and mode, or not at all.

pyinfra puts a file in one command, and its owner and mode in the next ones. So what is put waits
beside its target until something else is done; meanwhile chown and chmod of the target are done to
what waits. A new file is on disk, at the latest, before a program is run (`on_disk`): a power cut
between two native steps can leave a new name whose contents are not there yet, and by then nobody
has been told of it. What replaces a file is on disk before it does.
"""

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Waiting:
    beside: str
    target: str
    replaces: bool


class Puts:
    """The files that one connector puts, one at a time."""

    def __init__(self) -> None:
        self.waits = False
        """Whether a file may wait for its owner and mode. Whoever says so calls `appear` at the end of each operation."""
        self._waiting: _Waiting | None = None
        self._not_on_disk: list[str] = []

    def put(self, path: str, data: bytes) -> None:
        """`path` (or what it links to) holds `data`. An old file's mode, owner and attributes stay; a new one
        is 0600. Raises OSError; then nothing is changed."""
        self.appear()
        target = os.path.realpath(path)
        try:
            old = os.stat(target)  # noqa: PTH116 - each of thousands of files comes here
        except FileNotFoundError:
            old = None
        if old and (not stat.S_ISREG(old.st_mode) or old.st_nlink > 1):
            _write_into(target, data)
            return
        beside = _beside(target, data, old)
        self._waiting = _Waiting(beside, target, replaces=old is not None)
        if not self.waits:
            self.appear()

    def instead_of(self, path: str) -> str:
        """Where the file is that `path` will be: what chown and chmod are to be done to."""
        if self._waiting and os.path.realpath(path) == self._waiting.target:
            return self._waiting.beside
        return path

    @property
    def waiting(self) -> bool:
        return self._waiting is not None

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
                os.rename(waiting.beside, waiting.target)  # noqa: PTH104
            except OSError:
                # A file that something is mounted on, such as a container's /etc/hosts.
                if not os.path.ismount(waiting.target):
                    raise
                _write_into(waiting.target, Path(waiting.beside).read_bytes())
                os.unlink(waiting.beside)  # noqa: PTH108
        except BaseException:
            Path(waiting.beside).unlink(missing_ok=True)
            raise

    def on_disk(self) -> None:
        """All that was put is in its place, and will be there after a power cut. Raises OSError."""
        self.appear()
        names, self._not_on_disk = self._not_on_disk, []
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                _sync(name)
        for folder in {os.path.dirname(name) for name in names}:  # noqa: PTH120
            with contextlib.suppress(OSError):
                _sync(folder)


def _beside(target: str, data: bytes, old: os.stat_result | None) -> str:
    """One run at a time writes here, so the name beside is always the same: what a power cut leaves of it
    is taken away by the next run, and does not stay for ever."""
    folder, _, name = target.rpartition("/")
    beside = f"{folder}/.{name[:200]}.pyinfra-solo-new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside)  # noqa: PTH108
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", buffering=0) as opened:
            view = memoryview(data)
            while view:
                view = view[opened.write(view) :]
            if old:
                os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
                # ACLs and labels are extended attributes (acl(5), xattr(7)).
                shutil._copyxattr(target, beside)  # type: ignore[attr-defined]
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return beside


def _write_into(target: str, data: bytes) -> None:
    """In place, as cp(1) does: for a file of several names, and for what is no file."""
    descriptor = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    with open(descriptor, "wb") as opened:
        opened.write(data)
        opened.flush()
        with contextlib.suppress(OSError):  # a pipe or a device has nothing to sync
            os.fsync(descriptor)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
