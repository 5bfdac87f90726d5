"""Run plain commands of pyinfra's operations by system calls.

A command line is run here only when every character of it is understood; any other line is left to a
shell. This is safe besides being fast: chmod(1) and its like open a file by its name, which another
account that may write the folder can exchange. So it holds with `--no-native`, too, and what failed
here is not tried by a shell.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import contextlib
import errno
import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Callable, Sequence

from pyinfra_solo.native.files import is_plain
from pyinfra_solo.native.held import hold, holding
from pyinfra_solo.native.pending_files import PendingFiles

_LINE = re.compile(r"[a-z]+(?: (?:[A-Za-z0-9_@%+=:,./-]|'[ -&(-~]*+')++)++", re.ASCII)
"""Words without a meaning to the shell, and words between single quotes. Possessive: no backtracking."""
_MODE = re.compile(r"[0-7]{3,4}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


def run(line: str, pending: PendingFiles) -> bool:
    """Run the command `line`. False: it was not run, and a shell must run it. Raises OSError when it failed."""
    if not _LINE.fullmatch(line):
        return False
    name, *words = shlex.split(line) if "'" in line else line.split(" ")
    command = _COMMANDS.get(name)
    if command is None:
        return False
    if name not in _ON_PENDING_FILES:
        pending.rename_into_place()
    try:
        return command(pending, *words)
    except (KeyError, TypeError):  # TypeError: another number of words; KeyError: no such account
        return False
    except OSError as error:
        if error.errno:
            error.filename, error.filename2 = words[-1], None  # not /proc/self/fd, nor one name of the path
        raise


def _mkdir(_pending: PendingFiles, option: str, path: str) -> bool:
    """Run mkdir -p. A umask that forbids the owner to write into new parents is left to mkdir(1)."""
    if option != "-p" or not is_plain(path):
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


def _chmod(pending: PendingFiles, mode: str, path: str) -> bool:
    """Run chmod. It keeps two bits of a folder, as GNU chmod does unless the mode has five digits (chmod(1))."""
    if not _MODE.fullmatch(mode) or not is_plain(path):
        return False
    with pending.holding(path) as held:
        held.check_names()
        kept = held.status.st_mode & (stat.S_ISUID | stat.S_ISGID) if held.status and held.is_folder() else 0
        os.chmod(held.reached, int(mode, 8) | kept)
    return True


def _chown(pending: PendingFiles, *words: str) -> bool:
    follow, owner, path = _owner_and_path(words)
    user, colon, group = owner.partition(":")
    if not is_plain(path) or not _ACCOUNT.fullmatch(user) or (colon and not _ACCOUNT.fullmatch(group)):
        return False
    gid = grp.getgrnam(group).gr_gid if colon else -1
    _set_owner(pending, path, pwd.getpwnam(user).pw_uid, gid, follow)
    return True


def _chgrp(pending: PendingFiles, *words: str) -> bool:
    follow, group, path = _owner_and_path(words)
    if not is_plain(path) or not _ACCOUNT.fullmatch(group):
        return False
    _set_owner(pending, path, -1, grp.getgrnam(group).gr_gid, follow)
    return True


def _set_owner(pending: PendingFiles, path: str, uid: int, gid: int, follow: bool) -> None:
    with pending.holding(path, follow=follow) as held:
        held.check_names()
        os.chown(held.reached, uid, gid)


def _owner_and_path(words: Sequence[str]) -> tuple[bool, str, str]:
    """Parse [-h] OWNER PATH. Raises TypeError for anything else."""
    follow = words[0] != "-h"
    if len(words) != (2 if follow else 3):
        raise TypeError(words)
    return follow, words[-2], words[-1]


def _ln(_pending: PendingFiles, option: str, target: str, path: str) -> bool:
    """Run ln -s. In a folder of the name `path` the link gets the target's last name (ln(1))."""
    inside = target.rstrip("/").rpartition("/")[2]
    if option != "-s" or target.startswith("-") or inside in ("", ".", "..") or not is_plain(path):
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
    if option != "-f" or not is_plain(path) or path.endswith("/"):
        return False
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), holding(path, follow=False) as held:
        os.unlink(held.name, dir_fd=held.folder)
    return True


def _touch(_pending: PendingFiles, path: str) -> bool:
    if not is_plain(path):
        return False
    with holding(path) as held:
        if held.file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(held.name, flags, 0o666, dir_fd=held.folder))
            return True
        held.check_names()
        os.utime(held.reached)
    return True


_COMMANDS: dict[str, Callable[..., bool]] = {
    "mkdir": _mkdir,
    "chmod": _chmod,
    "chown": _chown,
    "chgrp": _chgrp,
    "ln": _ln,
    "rm": _rm,
    "touch": _touch,
}
_ON_PENDING_FILES = ("chmod", "chown", "chgrp")
"""Commands that change a pending file before its rename."""
