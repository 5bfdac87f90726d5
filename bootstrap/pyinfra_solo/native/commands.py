"""Run plain commands of pyinfra's operations by system calls.

A command line is run here only when every character of it is understood; any other line is left to a
shell. This is safe besides being fast: chmod(1) and its like open a file by its name, which another
account that may write the folder can exchange. So it holds with `--no-native`, too, and what failed
here is not tried by a shell. Nor is a command whose words are not understood, in a folder of that kind.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import calendar
import contextlib
import errno
import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Callable, Sequence
from datetime import datetime

from pyinfra_solo.native import modes
from pyinfra_solo.native.below import below
from pyinfra_solo.native.exposed import is_exposed
from pyinfra_solo.native.held import Held, RefusedError, hold, holding
from pyinfra_solo.native.pending_files import PendingFiles

_LINE = re.compile(r"[a-z]+(?: (?:[A-Za-z0-9_@%+=:,./-]|'[^'\0]*+'|\"'\")++)++", re.ASCII)
"""Words without a meaning to the shell, and words as shlex.quote writes them. Possessive: no backtracking."""
_OF_THE_KERNEL = re.compile(r"/+(proc|sys|dev(?!/shm/))(/|$)")
"""Such as /proc/self and /dev/fd, which are others for each process."""


def run(line: str, pending: PendingFiles, folder: str | None = None) -> bool:
    """Run the command `line`. False: it was not run, and a shell must run it. Raises OSError when it failed.

    folder: where a relative path begins; without it none is understood. Raises RefusedError for a
    command that is not understood where another account could lead a shell astray.
    """
    if not _LINE.fullmatch(line):
        return False
    name, *words = shlex.split(line) if "'" in line else line.split(" ")
    command = _COMMANDS.get(name)
    if command is None:
        return False
    if name not in _ON_PENDING_FILES:
        pending.rename_into_place()
    try:
        last = words[-1] if words[-1][:1] in ("", "-") else _below(folder, words[-1])
        if command(pending, *words[:-1], last):
            return True
    except (KeyError, TypeError):  # TypeError: another number of words; KeyError: no such account
        pass
    except OSError as error:
        if error.errno:
            error.filename, error.filename2 = words[-1], None  # not /proc/self/fd, nor one name of the path
        raise
    pending.rename_into_place()
    _check_way(name, words, folder)
    return False


def _below(folder: str | None, path: str) -> str:
    """Return the path from the root; cd(1), too, takes `..` from the text. Raises OSError for no folder."""
    if not folder:
        return path
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    return path if path.startswith("/") else os.path.join(os.path.abspath(folder), path)


def _check_way(name: str, words: Sequence[str], folder: str | None) -> None:
    """Refuse a command that a shell would run where another account may put or move names.

    rm and mkdir follow no link in the last folder. rm -r has no other way than a shell. Raises RefusedError.
    """
    options = [word for word in words if word.startswith("-")]
    if name == "rm" and any(_RECURSIVE.fullmatch(option) for option in options):
        return
    for word in words:
        path = word[word.index("/") :] if word.startswith("-") and "/" in word else word
        if not path.startswith("-") and is_exposed(
            _below(folder, path), also_last=name not in ("rm", "mkdir")
        ):
            raise RefusedError(
                f"{path} is refused: {name} is only safe here as pyinfra's operations write it, with an account that "
                f"exists, because others than root may put or move names on the way. Use files.file, files.directory "
                f"or files.link, or run the command as the folder's owner (_su_user)."
            )


_RECURSIVE = re.compile(r"-[a-zA-Z]*[rR][a-zA-Z]*|--recursive")


def _mkdir(_pending: PendingFiles, option: str, path: str) -> bool:
    """Run mkdir -p. A umask that forbids the owner to write into new parents is left to mkdir(1)."""
    if option != "-p" or not _is_plain(path):
        return False
    try:
        with holding(path.rstrip("/") or "/") as held:
            if held.file is None and not held.by_link:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(held.name, dir_fd=held.folder)
                    return True
    except FileNotFoundError:
        if _umask() & (stat.S_IWUSR | stat.S_IXUSR):
            return False
    hold(f"{path}/", make=True).close()
    return True


def _umask() -> int:
    """Return the umask from proc(5): umask(2) cannot read it without a change."""
    with open("/proc/self/status") as status:
        return int(status.read().partition("Umask:\t")[2].partition("\n")[0], 8)


def _chmod(pending: PendingFiles, *words: str) -> bool:
    recursive, mode, path = _two_words(words, "-R")
    if not modes.is_understood(mode) or not _is_plain(path):
        return False
    umask = _umask() if not mode.isdigit() else 0

    def change(held: Held) -> None:
        if held.status and not stat.S_ISLNK(held.status.st_mode):  # a link in a tree has no mode
            os.chmod(held.reached, modes.changed(mode, held.status.st_mode, umask))

    return _change(pending, path, change, recursive=bool(recursive), follow=True)


def _chown(pending: PendingFiles, *words: str) -> bool:
    option, owner, path = _two_words(words, "-h", "-R")
    user, colon, group = owner.partition(":")
    if not _is_plain(path) or not (user or group):
        return False
    uid = _number(user, _uid) if user else -1
    gid = _number(group, _gid) if group else -1
    if colon and not group:
        gid = pwd.getpwnam(user).pw_gid
    return _set_owner(pending, path, uid, gid, option)


def _chgrp(pending: PendingFiles, *words: str) -> bool:
    option, group, path = _two_words(words, "-h", "-R")
    if not _is_plain(path) or not group:
        return False
    return _set_owner(pending, path, -1, _number(group, _gid), option)


def _set_owner(pending: PendingFiles, path: str, uid: int, gid: int, option: str) -> bool:
    """Change the owner; of a link itself with -h, and with -R as GNU chown does."""

    def change(held: Held) -> None:
        if option != "-R":
            pending.give_to(uid, held)
        os.chown(held.reached, uid, gid)

    return _change(pending, path, change, recursive=option == "-R", follow=not option)


def _change(
    pending: PendingFiles, path: str, change: Callable[[Held], None], *, recursive: bool, follow: bool
) -> bool:
    if recursive:
        pending.rename_into_place()
    with pending.holding(path, follow=follow) as held:
        if held.file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        held.check_names()
        change(held)
        for one in below(held, pending.timeout) if recursive else ():
            change(one)
    return True


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _number(name: str, number_of: Callable[[str], int]) -> int:
    """Return the number of an account or group; names come first, as with chown(1). Raises KeyError."""
    try:
        return number_of(name)
    except KeyError:
        if name.isascii() and name.isdigit() and int(name) < _NO_NUMBER:
            return int(name)
        raise


_NO_NUMBER = 2**32 - 1
"""It stands for no change (chown(2))."""


def _two_words(words: Sequence[str], *options: str) -> tuple[str, str, str]:
    """Parse [OPTION] WORD PATH. Raises TypeError for anything else."""
    if len(words) == 3 and words[0] in options:
        return words[0], words[1], words[2]
    if len(words) != 2 or words[0].startswith("-"):
        raise TypeError(words)
    return "", words[0], words[1]


def _is_plain(path: str) -> bool:
    """Tell whether a shell's tools would see the same file."""
    return path.startswith("/") and not _OF_THE_KERNEL.match(os.path.normpath(path))


def _ln(_pending: PendingFiles, option: str, target: str, path: str) -> bool:
    """Run ln -s. In a folder of the name `path` the link gets the target's last name (ln(1))."""
    inside = target.rstrip("/").rpartition("/")[2]
    if option != "-s" or target.startswith("-") or inside in ("", ".", "..") or not _is_plain(path):
        return False
    with holding(path) as held:
        if held.is_folder():
            os.symlink(target, inside, dir_fd=held.file)
        elif held.by_link:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        else:
            os.symlink(target, held.name, dir_fd=held.folder)
    return True


def _rm(_pending: PendingFiles, option: str, path: str) -> bool:
    if option != "-f" or not _is_plain(path) or path.endswith("/"):
        return False
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), holding(path, follow=False) as held:
        os.unlink(held.name, dir_fd=held.folder)
    return True


def _touch(pending: PendingFiles, *words: str) -> bool:
    """Run touch, or touch with -a or -m and a time, as pyinfra writes it."""
    *options, path = words
    if not _is_plain(path) or (options and not _TIME.fullmatch(" ".join(options))):
        return False
    with pending.holding(path) as held:
        if held.file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(held.name, flags, 0o666, dir_fd=held.folder), "wb") as created:
                _set_time(created.fileno(), options)
        else:
            held.check_names()
            _set_time(held.reached, options)
    return True


_TIME = re.compile(r"-[am] -d \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", re.ASCII)


def _set_time(file: int | str, options: Sequence[str]) -> None:
    if not options:
        os.utime(file)
        return
    time = datetime.fromisoformat(options[2])
    wanted = calendar.timegm(time.timetuple()) * 10**9 + time.microsecond * 1000
    old = os.stat(file)
    os.utime(file, ns=(wanted, old.st_mtime_ns) if options[0] == "-a" else (old.st_atime_ns, wanted))


_COMMANDS: dict[str, Callable[..., bool]] = {
    "mkdir": _mkdir,
    "chmod": _chmod,
    "chown": _chown,
    "chgrp": _chgrp,
    "ln": _ln,
    "rm": _rm,
    "touch": _touch,
}
_ON_PENDING_FILES = ("chmod", "chown", "chgrp", "touch")
"""Commands that change a pending file before its rename."""
