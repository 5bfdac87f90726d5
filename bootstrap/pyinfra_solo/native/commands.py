"""Plain commands of pyinfra's operations, done by system calls.

A command line is taken only when it is understood to the last character. Whatever is out of the usual,
and every failure, takes the ordinary road: each of these commands can be given again, and the real
tool says what is wrong in its own words.
"""

# A Path costs as much again as the system call, for each of thousands of files.

import contextlib
import grp
import os
import pwd
import re
import shlex
import stat
from collections.abc import Callable, Sequence

from pyinfra_solo.native.files import contents, usual
from pyinfra_solo.native.pending_files import PendingFiles

_LINE = re.compile(r"[a-z]+(?: (?:[A-Za-z0-9_@%+=:,./-]|'[ -&(-~]*+')++)++", re.ASCII)
"""Words without a meaning to the shell, and words between single quotes. Nothing is tried twice."""
_MODE = re.compile(r"[0-7]{3,4}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)


def done(line: str, puts: PendingFiles) -> bool:
    """Whether `line` was understood and done. False: nothing, or not all of it, was done; give it to a shell."""
    if not _LINE.fullmatch(line):
        return False
    name, *words = shlex.split(line) if "'" in line else line.split(" ")
    do = _COMMANDS.get(name)
    if do is None:
        return False
    if name not in _OF_WHAT_WAITS:
        puts.appear()
    try:
        return do(puts, *words)
    except (OSError, KeyError, TypeError):  # TypeError: another number of words; KeyError: no such account
        return False


def _mkdir(_puts: PendingFiles, option: str, path: str) -> bool:
    """As mkdir -p: parents too, with the mode that the umask leaves. Parents whose owner could not write
    into them get another (mkdir(1)), and are left to it."""
    if option != "-p" or not usual(path):
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
    """proc(5), /proc/PID/status: umask(2) can be read by changing it only."""
    with open("/proc/self/status") as status:
        return int(status.read().partition("Umask:\t")[2].partition("\n")[0], 8)


def _chmod(puts: PendingFiles, mode: str, path: str) -> bool:
    if not _MODE.fullmatch(mode) or not usual(path):
        return False
    path = puts.instead_of(path)
    about = os.stat(path)
    # GNU chmod keeps these two bits of a folder unless it is told all of them (chmod(1)).
    if stat.S_ISDIR(about.st_mode) and about.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return False
    os.chmod(path, int(mode, 8))
    return True


def _chown(puts: PendingFiles, *words: str) -> bool:
    follow, owner, path = _owner_and_path(words)
    user, colon, group = owner.partition(":")
    if not usual(path) or not _ACCOUNT.fullmatch(user) or (colon and not _ACCOUNT.fullmatch(group)):
        return False
    gid = grp.getgrnam(group).gr_gid if colon else -1
    _give(puts, path, pwd.getpwnam(user).pw_uid, gid, follow)
    return True


def _chgrp(puts: PendingFiles, *words: str) -> bool:
    follow, group, path = _owner_and_path(words)
    if not usual(path) or not _ACCOUNT.fullmatch(group):
        return False
    _give(puts, path, -1, grp.getgrnam(group).gr_gid, follow)
    return True


def _give(puts: PendingFiles, path: str, uid: int, gid: int, follow: bool) -> None:
    if follow or not os.path.islink(path):
        path = puts.instead_of(path)
    os.chown(path, uid, gid, follow_symlinks=follow)


def _owner_and_path(words: Sequence[str]) -> tuple[bool, str, str]:
    """[-h] OWNER PATH. Raises TypeError for anything else."""
    follow = words[0] != "-h"
    if len(words) != (2 if follow else 3):
        raise TypeError(words)
    return follow, words[-2], words[-1]


def _ln(_puts: PendingFiles, option: str, target: str, path: str) -> bool:
    if option != "-s" or target.startswith("-") or not target or not usual(path) or path.endswith("/"):
        return False
    if os.path.lexists(path):  # into a folder, or over nothing
        return False
    os.symlink(target, path)
    return True


def _rm(_puts: PendingFiles, option: str, path: str) -> bool:
    if option != "-f" or not usual(path) or path.endswith("/"):
        return False
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)
    return True


def _mv(_puts: PendingFiles, old: str, new: str) -> bool:
    """Within a file system, onto nothing or onto a file: what rename(2) does."""
    if not usual(old) or not usual(new) or old.endswith("/") or new.endswith("/"):
        return False
    if os.path.isdir(new) or (os.path.lexists(new) and (os.path.isdir(old) or os.path.samefile(old, new))):
        return False
    os.rename(old, new)
    return True


def _cp(puts: PendingFiles, *words: str) -> bool:
    """A regular file, to a new name or over a regular file."""
    if len(words) == 3 and words[0] == "-r":
        words = words[1:]
    if len(words) != 2:
        return False
    old, new = words
    if not usual(old) or not usual(new) or new.endswith("/"):
        return False
    mode = os.lstat(old).st_mode
    if not stat.S_ISREG(mode) or os.path.isdir(new) or (os.path.lexists(new) and not _is_file(new)):
        return False
    if os.path.exists(new) and os.path.samefile(old, new):
        return False
    data = contents(old)
    if data is None:
        return False
    puts.put(new, data, mode & 0o777)
    puts.appear()
    return True


def _is_file(path: str) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def _touch(_puts: PendingFiles, path: str) -> bool:
    if not usual(path):
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
    "mv": _mv,
    "cp": _cp,
    "touch": _touch,
}
_OF_WHAT_WAITS = ("chmod", "chown", "chgrp")
