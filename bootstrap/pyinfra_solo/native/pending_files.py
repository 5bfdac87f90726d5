"""Write files by rename: a file appears whole, with its owner and mode, or not at all.

pyinfra uploads a file in one command, and sets its owner and mode in the next ones. So the upload goes
to a temporary file; chown and chmod of the target change the temporary file; then it is renamed over
the target.

The folder, the old file and the temporary file are held by descriptors (`held`): an account that may
write the folder cannot lead contents or an owner to another file. Until the rename the temporary file is
in a folder that no other account can enter (`private_folder`). Of an old file that another account may
have planted, nothing is taken over.

An old file is replaced only by a file that is on disk already. A new file is synced at the latest
before a program runs (`sync`): until then a power cut can leave its name without its contents, but
no program has seen it.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pyinfra_solo.native import in_place, private_folder
from pyinfra_solo.native.held import Held, hold, holding
from pyinfra_solo.native.private_folder import PrivateFolder


class _Pending(NamedTuple):
    asked: str
    """The path as it was given."""
    place: Held
    private: PrivateFolder
    """The temporary file's folder."""
    descriptor: int
    """The temporary file, open for reading and writing."""
    heir_of: int | None
    """The other account whose old file's owner, group and mode were taken over."""


class PendingFiles:
    """The files that one connector writes, one at a time."""

    def __init__(self) -> None:
        self.defer_rename = False
        """True: a file stays pending for chown and chmod. Call `rename_into_place` afterwards."""
        self.timeout = in_place.TIMEOUT
        """Seconds for a pipe or terminal whose reader is slow, and for a tree of files."""
        self._pending: _Pending | None = None
        self._unsynced: list[tuple[int, int]] = []
        """Descriptors of new files and of their folders."""
        self._more_unsynced = False

    def put(self, path: str, data: bytes) -> None:
        """Write `data` to the file `path`, or to the file that it links to.

        An old file's mode, owner and extended attributes stay, unless another account may have planted it;
        flags of chattr(1) do not. A new file is for its owner alone. Raises RefusedError, and OSError where
        cp(1) would fail.
        """
        self.rename_into_place()
        place = hold(path)
        try:
            _check_as_cp(place)
            pending = _write_temporary(path, place, data) if _goes_by_rename(place) else None
            if not pending:
                in_place.write(place, data, timeout=self.timeout)
        except BaseException as error:
            place.close()
            if isinstance(error, OSError) and error.errno:
                error.filename = path
            raise
        self._pending = pending
        if not pending:
            place.close()
        elif not self.defer_rename:
            self.rename_into_place()

    @contextlib.contextmanager
    def holding(self, path: str, *, follow: bool = True) -> Iterator[Held]:
        """Hold the file that `path` names by the next rename: the pending file, or that of `held.hold`."""
        pending = self._pending
        if pending and follow and path == pending.asked:
            yield _new_file(pending)
            return
        with holding(path, follow=follow) as one:
            is_link = one.status is not None and stat.S_ISLNK(one.status.st_mode)
            is_pending = pending and not is_link and one.is_place_of(pending.place)
            yield _new_file(pending) if pending and is_pending else one

    def give_to(self, uid: int, held: Held) -> None:
        """Prepare a file for chown(2) to `uid`, -1 for none. Raises OSError, RefusedError.

        The pending file of an heir becomes one for its owner alone, so that the mode, group and access
        list of an account's file never say who may read the file of another account.
        """
        pending = self._pending
        if not pending or held.file != pending.descriptor:
            held.check_giving(uid)
        elif pending.heir_of is not None and uid not in (-1, pending.heir_of):
            os.fchown(pending.descriptor, os.geteuid(), os.getegid())
            os.fchmod(pending.descriptor, _NEW_MODE)
            with contextlib.suppress(OSError):  # there is none
                os.removexattr(pending.descriptor, "system.posix_acl_access")

    def rename_into_place(self) -> None:
        """Rename the pending file over its target. Raises OSError; then the old file is still there."""
        pending, self._pending = self._pending, None
        if not pending:
            return
        try:
            if pending.place.file is None:
                self._sync_later(pending)
            else:
                os.fsync(pending.descriptor)
            _rename(pending)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno:
                error.filename, error.filename2 = pending.asked, None
            raise
        finally:
            pending.private.remove()
            os.close(pending.descriptor)
            pending.place.close()

    def _sync_later(self, pending: _Pending) -> None:
        """Keep descriptors for `sync`. None can write: execve(2) refuses a program that is open so."""
        if len(self._unsynced) >= _MANY:
            self._more_unsynced = True
        if self._more_unsynced:
            return
        try:
            folder = _open_folder(pending.place)
            file = os.open(f"/proc/self/fd/{pending.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not readable for this account
            self._more_unsynced = True
        else:
            self._unsynced.append((file, folder))

    def sync(self) -> None:
        """Rename the pending file, and make all written files survive a power cut. Raises OSError."""
        self.rename_into_place()
        unsynced, self._unsynced = self._unsynced, []
        more, self._more_unsynced = self._more_unsynced, False
        try:
            if more:
                os.sync()  # sync(2) waits for it on Linux
                return
            for file, folder in unsynced:
                os.fsync(file)
                with contextlib.suppress(OSError):  # a file system that has no fsync for folders, fsync(2)
                    os.fsync(folder)
        finally:
            for both in unsynced:
                for descriptor in both:
                    os.close(descriptor)


_MANY = 16
"""Files: from here on one sync(2) costs less than an fsync(2) of each."""


def _new_file(pending: _Pending) -> Held:
    return pending.place._replace(file=pending.descriptor, status=os.fstat(pending.descriptor))


def _check_as_cp(place: Held) -> None:
    """Raise OSError where cp(1) could not write to `place`, and RefusedError."""
    if place.status is None:
        if place.by_link:
            raise OSError(errno.ENOENT, "not written through a link to nothing")
        return
    place.check_names()
    if stat.S_ISREG(place.status.st_mode):
        try:
            os.close(os.open(place.reached, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            if error.errno != errno.ETXTBSY:  # a running program keeps the old file
                raise


def _goes_by_rename(place: Held) -> bool:
    """Tell whether a new inode can take the place of the old one."""
    old = place.status
    if old and (not stat.S_ISREG(old.st_mode) or old.st_nlink != 1 or in_place.is_of_the_kernel(place)):
        return False
    try:
        folder = _open_folder(place)
    except OSError:  # not readable for this account
        return True
    try:
        private_folder.sweep(folder)
        return not _is_append_only(folder)
    finally:
        os.close(folder)


def _open_folder(place: Held) -> int:
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.folder)


_GET_FLAGS = 0x80006601 | struct.calcsize("l") << 16
"""FS_IOC_GETFLAGS of linux/fs.h, for most processors; for others the call fails."""
_APPEND_ONLY = 0x20
"""FS_APPEND_FL of linux/fs.h."""


def _is_append_only(folder: int) -> bool:
    """Tell whether nothing can be renamed or removed there (chattr(1), +a)."""
    try:
        answer = fcntl.ioctl(folder, _GET_FLAGS, bytes(8))
    except OSError:  # a file system without such flags
        return False
    return bool(struct.unpack_from("i", answer)[0] & _APPEND_ONLY)  # an int, whatever its number says


_NO_TEMPORARY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""The folder is not writable, or this process cannot give the old owner: write the file itself."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
"""There is no space for both files: write the old one itself."""


def _write_temporary(asked: str, place: Held, data: bytes) -> _Pending | None:
    """Write a temporary file beside the target; None when only the target can be written. Raises OSError."""
    old = place.status if place.has_trusted_file() else None
    private = descriptor = None
    try:
        private = private_folder.make(place)
        descriptor = private.open_new()
        in_place.write_all(descriptor, data)
        if old:
            os.fchown(descriptor, old.st_uid, old.st_gid)
            _copy_attributes(place.reached, descriptor)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            # As the truncation of the old file would: it drops setuid bits, unless this is root (inode(7)).
            os.ftruncate(descriptor, len(data))
    except BaseException as error:
        if descriptor is not None:
            os.close(descriptor)
        if private:
            private.remove()
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_TEMPORARY or (place.status and number in _FULL and not place.is_shared()):
            return None
        raise
    is_heir = old and place.is_shared() and old.st_uid not in (0, os.geteuid())
    return _Pending(asked, place, private, descriptor, old.st_uid if old and is_heir else None)


_NEW_MODE = 0o600


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


def _rename(pending: _Pending) -> None:
    try:
        pending.private.rename_into_place()
    except OSError as error:
        # A mount point, such as a container's /etc/hosts; or a file of another account in a sticky folder.
        if error.errno not in (errno.EBUSY, errno.EPERM):
            raise
        with open(pending.descriptor, "rb", closefd=False) as opened:
            opened.seek(0)
            in_place.write(pending.place, opened.read(), like=os.fstat(pending.descriptor))
