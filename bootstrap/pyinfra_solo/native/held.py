"""Hold files and folders by descriptors, so that no account can exchange them for others meanwhile.

A path is walked one name at a time (openat(2) with O_PATH and O_NOFOLLOW), and links are followed
here. An account that may write a folder may plant a link there, or move one: root would then write or
give away the file behind it. Such a link is refused.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import contextlib
import errno
import os
import pwd
import stat
import sys
from collections.abc import Iterator
from typing import NamedTuple

_MAX_LINKS = 40
"""As many as the kernel follows (path_resolution(7))."""
FILE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = FILE | os.O_DIRECTORY
"""Flags that hold what is there and follow no link; open(2) with O_PATH reads and writes nothing."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
"""Rights that an access control list gives show in the group's (acl(5))."""


class RefusedError(OSError):
    """A link that another account may have planted. The message says which one and what to do."""


class Held(NamedTuple):
    """A name in a folder, and the file of that name, if there is one. Close it after use."""

    folder: int
    """A descriptor (O_PATH)."""
    name: str
    """The name in the folder; '.' for the folder itself."""
    file: int | None
    """The file's descriptor; None for no file."""
    status: os.stat_result | None
    """The file's status when it was opened."""
    by_link: bool
    """True: a link at the end of the path led here."""

    @property
    def reached(self) -> str:
        """Return a path to the held file, whatever has its name by now (proc(5)).

        Most system calls refuse a descriptor that was opened with O_PATH. Raises FileNotFoundError.
        """
        if self.file is None:
            raise _error(errno.ENOENT, self.path)
        return f"/proc/self/fd/{self.file}"

    @property
    def path(self) -> str:
        """Return the path, without links."""
        return _path(self.folder, self.name)

    def is_folder(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    def is_place_of(self, other: "Held") -> bool:
        """Tell whether both are the same name in the same folder."""
        return self.name == other.name and os.path.sameopenfile(self.folder, other.folder)

    def check_names(self, folder: os.stat_result | None = None) -> None:
        """Refuse a file with several names, when another account may have made this one (link(2)).

        An account's own file in its own folder stays that account's business. folder: its status, when
        it was changed since. Raises RefusedError.
        """
        if not self.status or self.status.st_nlink == 1 or self.is_folder():
            return
        folder = folder or os.fstat(self.folder)
        if folder.st_uid == self.status.st_uid and not folder.st_mode & _OTHERS_WRITE:
            return
        if others_may_write(folder):
            raise _refusal(self.path, f"file with {self.status.st_nlink} names", self.status, folder)

    def is_shared(self) -> bool:
        """Tell whether others than root and this account may put or move names in the folder."""
        return others_may_write(os.fstat(self.folder))

    def has_trusted_file(self) -> bool:
        """Tell whether a new file may take over owner, mode and attributes of the file that is here.

        An account's file in a folder of that account alone is trusted so far: all there is its own business.
        """
        if not self.status:
            return False
        folder = os.fstat(self.folder)
        if not others_may_write(folder) or self.status.st_uid in _own():
            return True
        return self.status.st_uid == folder.st_uid and not folder.st_mode & _OTHERS_WRITE

    def check_in_place(self) -> None:
        """Refuse to write into a file that another account may have made, and may read or have open.

        Raises RefusedError.
        """
        if not self.status or not others_may_write(folder := os.fstat(self.folder)):
            return
        is_regular = stat.S_ISREG(self.status.st_mode)
        if not is_regular or self.status.st_nlink != 1 or self.status.st_uid not in _own():
            what = "file" if is_regular else "special file"
            names = f" with {self.status.st_nlink} names" if self.status.st_nlink != 1 else ""
            raise _refusal(self.path, what + names, self.status, folder)

    def check_giving(self, uid: int) -> None:
        """Refuse to give a regular file from one account to another that would trust it.

        Its owner may have it open for writing, and could change it afterwards. uid: -1 for no change.
        Raises RefusedError.
        """
        if not self.status or uid in (-1, self.status.st_uid) or self.status.st_uid in _own():
            return
        folder = os.fstat(self.folder)
        if stat.S_ISREG(self.status.st_mode) and others_may_write(folder):
            raise _refusal(self.path, "file, which that account may have open,", self.status, folder)

    def close(self) -> None:
        os.close(self.folder)
        if self.file is not None:
            os.close(self.file)


@contextlib.contextmanager
def holding(path: str, *, follow: bool = True) -> Iterator[Held]:
    """Hold `path` in a `with` block; see `hold`."""
    one = hold(path, follow=follow)
    try:
        yield one
    finally:
        one.close()


def hold(path: str, *, follow: bool = True, make: bool = False) -> Held:
    """Walk to `path` and hold it.

    follow: a link at the end, too. make: folders that are missing on the way, as mkdir(1) does with -p.
    A file that is missing at the end is no error. Raises RefusedError, and OSError as open(2) does.
    """
    if not path:
        raise _error(errno.ENOENT, path)
    walk = Walk(path, follow, make)
    try:
        return walk.to_its_end()
    except BaseException as error:
        os.close(walk.folder)
        if isinstance(error, OSError) and error.filename is not None:
            error.filename = path  # of a system call it is one name of the path
        raise


class Walk:
    """The names that are left of a path, and the folder that is reached."""

    def __init__(self, path: str, follow: bool, make: bool) -> None:
        self._follow, self._make = follow, make
        self._names = path.split("/")[::-1]
        self._links = 0
        self._after_link = sys.maxsize
        """So many names of the path itself are left after those of a link."""
        self.folder = os.open("/" if path[0] == "/" else ".", FOLDER)

    def to_its_end(self) -> Held:
        while self._names:
            name = self._names.pop()
            if not (by_link := len(self._names) >= self._after_link):
                self._after_link = sys.maxsize
            if name in ("", "."):
                continue
            if self._names or name == "..":
                self._enter(name, make=self._make and not by_link)
                continue
            try:
                file = os.open(name, FILE, dir_fd=self.folder)
            except FileNotFoundError:
                return Held(self.folder, name, None, None, by_link)
            status = os.fstat(file)
            if not self._follow or not stat.S_ISLNK(status.st_mode):
                return Held(self.folder, name, file, status, by_link)
            self._expand(name, file, status)
        return Held(self.folder, ".", os.dup(self.folder), os.fstat(self.folder), by_link=False)

    def _enter(self, name: str, *, make: bool) -> None:
        try:
            inner = os.open(name, FOLDER, dir_fd=self.folder)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=self.folder)
            inner = os.open(name, FOLDER, dir_fd=self.folder)
        except NotADirectoryError:
            file = os.open(name, FILE, dir_fd=self.folder)
            status = os.fstat(file)
            if stat.S_ISLNK(status.st_mode):
                self._expand(name, file, status)
                return
            os.close(file)
            raise
        os.close(self.folder)
        self.folder = inner

    def _expand(self, name: str, link: int, status: os.stat_result) -> None:
        """Put the link's target in the place of its name, and close the link."""
        try:
            self._links += 1
            if self._links > _MAX_LINKS:
                raise _error(errno.ELOOP, name)
            _check_link(self.folder, name, status)
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        if target.startswith("/"):
            root = os.open("/", FOLDER)
            os.close(self.folder)
            self.folder = root
        self._after_link = min(self._after_link, len(self._names))
        self._names += target.split("/")[::-1]


def _check_link(folder: int, name: str, link: os.stat_result) -> None:
    """Refuse a link that another account may have planted or moved here. Raises RefusedError."""
    about = os.fstat(folder)
    if others_may_write(about) and (link.st_nlink != 1 or may_be_planted(link, about)):
        raise _refusal(_path(folder, name), "link", link, about)


def may_be_planted(file: os.stat_result, folder: os.stat_result) -> bool:
    """Tell whether another account may have put the file into the folder, or moved it there.

    A folder's owner can move root's files in it to other names. Where all may write, only the sticky bit
    hinders them (inode(7)). Members of a group that may write root's folder are trusted not to.
    """
    if not others_may_write(folder):
        return False
    movable = folder.st_uid not in _own() or folder.st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH
    return file.st_uid not in _own() or movable


def _refusal(path: str, what: str, file: os.stat_result, folder: os.stat_result) -> RefusedError:
    return RefusedError(
        f"{path} is refused: this {what} of {_account(file.st_uid)} is in a folder of {_account(folder.st_uid)} with "
        f"mode {stat.S_IMODE(folder.st_mode):o}, where others than root may put or move names. Name the file by "
        f"another path, let root alone write the folder, or run the operation as the folder's owner (_su_user)."
    )


def others_may_write(folder: os.stat_result) -> bool:
    return folder.st_uid not in _own() or bool(folder.st_mode & _OTHERS_WRITE)


def _own() -> tuple[int, int]:
    return 0, os.geteuid()


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _path(folder: int, name: str) -> str:
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
