"""Run plain commands of pyinfra's operations by system calls.

A command line is run here only when every character of it is understood. Any other line, and every
failure, falls back to a shell: each of these commands can be run twice, and the real tool then fails
with its own message.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import contextlib
import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Callable, Sequence

from pyinfra_solo.native.files import is_plain
from pyinfra_solo.native.pending_files import PendingFiles

_LINE = re.compile(r"[a-z]+(?: (?:[A-Za-z0-9_@%+=:,./-]|'[ -&(-~]*+')++)++", re.ASCII)
"""Words without a meaning to the shell, and words between single quotes. Possessive: no backtracking."""
_MODE = re.compile(r"[0-7]{3,4}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


def run(line: str, pending: PendingFiles) -> bool:
    """Run the command `line`. False: a shell must run it, as it was not run here, or failed."""
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
    except (OSError, KeyError, TypeError):  # TypeError: another number of words; KeyError: no such account
        return False


def _mkdir(_pending: PendingFiles, option: str, path: str) -> bool:
    """Run mkdir -p. A umask that forbids the owner to write into new parents is left to mkdir(1)."""
    if option != "-p" or not is_plain(path):
        return False
    try:
        os.mkdir(path)
    except FileExistsError:
        return os.path.isdir(path)
    except FileNotFoundError:
        if _umask() & (stat.S_IWUSR | stat.S_IXUSR):
            return False
        os.makedirs(path, exist_ok=True)
    return True


def _umask() -> int:
    """Return the umask from proc(5): umask(2) cannot read it without a change."""
    with open("/proc/self/status") as status:
        return int(status.read().partition("Umask:\t")[2].partition("\n")[0], 8)


def _chmod(pending: PendingFiles, mode: str, path: str) -> bool:
    if not _MODE.fullmatch(mode) or not is_plain(path):
        return False
    path = pending.staged_path(path)
    old = os.stat(path).st_mode
    # GNU chmod keeps these two bits of a folder unless the mode has five digits (chmod(1)).
    if stat.S_ISDIR(old) and old & (stat.S_ISUID | stat.S_ISGID):
        return False
    os.chmod(path, int(mode, 8))
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
    if follow or not os.path.islink(path):
        path = pending.staged_path(path)
    os.chown(path, uid, gid, follow_symlinks=follow)


def _owner_and_path(words: Sequence[str]) -> tuple[bool, str, str]:
    """Parse [-h] OWNER PATH. Raises TypeError for anything else."""
    follow = words[0] != "-h"
    if len(words) != (2 if follow else 3):
        raise TypeError(words)
    return follow, words[-2], words[-1]


def _ln(_pending: PendingFiles, option: str, target: str, path: str) -> bool:
    if option != "-s" or target.startswith("-") or not target or not is_plain(path) or path.endswith("/"):
        return False
    if os.path.lexists(path):  # ln(1) then creates the link in that folder, or fails
        return False
    os.symlink(target, path)
    return True


def _rm(_pending: PendingFiles, option: str, path: str) -> bool:
    if option != "-f" or not is_plain(path) or path.endswith("/"):
        return False
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)
    return True


def _touch(_pending: PendingFiles, path: str) -> bool:
    if not is_plain(path):
        return False
    if os.path.isdir(path):
        os.utime(path)
        return True
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    try:
        os.utime(descriptor)
    finally:
        os.close(descriptor)
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
