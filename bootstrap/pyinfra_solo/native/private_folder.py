"""Keep a file that is being written in a folder beside its target that this account alone can enter.

An account that may write the target's folder could otherwise open the file as soon as it is given the old
file's owner or mode, and keep it open after the rename.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import contextlib
import os
import re
import stat
from typing import NamedTuple

from pyinfra_solo.native.held import FOLDER, Held, RefusedError


class PrivateFolder(NamedTuple):
    """A folder of mode 0700. The file in it has the folder's own name, which is random."""

    place: Held
    name: str
    descriptor: int

    def open_new(self) -> int:
        """Create the file with mode 0600 and open it for reading and writing. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.name, flags, 0o600, dir_fd=self.descriptor)

    def rename_into_place(self) -> None:
        """Rename the file over the place's name. Raises OSError."""
        os.rename(self.name, self.place.name, src_dir_fd=self.descriptor, dst_dir_fd=self.place.folder)

    def remove(self) -> None:
        """Remove the folder, and the file if it is still there, and close the descriptor."""
        _remove(self.place.folder, self.name, self.descriptor)
        os.close(self.descriptor)


def make(place: Held) -> PrivateFolder:
    """Make a private folder beside the place. Raises OSError; RefusedError when it is exchanged."""
    name = f".pyinfra-solo-{os.getpid()}-{os.urandom(4).hex()}.new"
    os.mkdir(name, 0o700, dir_fd=place.folder)
    descriptor = os.open(name, FOLDER, dir_fd=place.folder)
    if not _is_private(descriptor):
        os.close(descriptor)
        raise RefusedError(
            f"{place.path} is refused: another account has exchanged the new folder {name} beside it. Let root alone "
            f"write that folder, or write the file as the folder's owner (_su_user)."
        )
    return PrivateFolder(place, name, descriptor)


def _is_private(descriptor: int) -> bool:
    """Tell whether no other account can enter the folder, by an access control list neither (acl(5))."""
    status = os.fstat(descriptor)
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _remove(parent: int, name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=parent)


_NAME = re.compile(r"\.pyinfra-solo-(\d+)-[0-9a-f]{8}\.new", re.ASCII)
_swept: set[tuple[int, int]] = set()
"""Device and inode of each folder."""


def sweep(folder: int) -> None:
    """Remove the private folders of killed runs, once for each folder."""
    status = os.fstat(folder)
    if (status.st_dev, status.st_ino) in _swept:
        return
    _swept.add((status.st_dev, status.st_ino))
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if (left := _NAME.fullmatch(name)) and not os.path.exists(f"/proc/{left[1]}"):
                _remove_left(folder, name)


def _remove_left(parent: int, name: str) -> None:
    with contextlib.suppress(OSError):
        folder = os.open(name, FOLDER, dir_fd=parent)
        try:
            if _is_private(folder):
                _remove(parent, name, folder)
        finally:
            os.close(folder)
