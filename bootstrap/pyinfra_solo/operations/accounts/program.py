"""Check and make an account.

accounts check|apply name=NAME home=PATH shell=PATH system:=BOOL groups:=[NAME, ...] keys:=[LINE, ...]

groups: names that the account has besides its own group. keys: the lines of its authorized_keys; null:
that file is left alone. A system account has no home and no password, and nobody can log in to it.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pyinfra_solo.operations.prelude import as_account, main, report, require, sync, write

KEYS_SIZE = 64 * 1024
"""Largest authorized_keys that is read, in bytes.

A larger one is wrong: its account may have made it to fill memory.
"""
_WRITES = 10
"""Tries to write authorized_keys: the account may put something in its way at that moment."""
_RENAMES = 1000
_OF_THE_DISK = (errno.ENOSPC, errno.EROFS, errno.EIO)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check(
    name: str, home: str, shell: str, system: bool, groups: Sequence[str], keys: Sequence[str] | None
) -> list[str]:
    """List what the account lacks: account, or half, shell, groups, home, keys. Raises OSError."""
    account = _account(name)
    if account is None:
        return ["account"]
    gaps = {
        "half": _is_half_made(account),
        "shell": account.pw_shell != shell,
        "groups": bool(_missing_groups(account, groups)),
        "home": not system and not Path(home).is_dir(),
        "keys": not _has_keys(account, home, keys),
    }
    return [gap for gap, is_there in gaps.items() if is_there]


def apply(
    name: str, home: str, shell: str, system: bool, groups: Sequence[str], keys: Sequence[str] | None
) -> None:
    """Make the account, or put right what `check` finds."""
    os.umask(0o022)
    account = _account(name)
    if account is None:
        options = ["--no-create-home", "--user-group", "--home-dir", home, "--shell", shell]
        options += ["--system"] if system else []
        require("useradd", *options, "--password", "*", "--", name)
        report(f"{name}: created")
    elif _is_half_made(account):
        _complete(account)
        report(f"{name}: was half made")
    account = pwd.getpwnam(name)
    if account.pw_shell != shell:
        require("usermod", "--shell", shell, "--", name)
    for group in _missing_groups(account, groups):
        if not _group_exists(group):
            require("groupadd", "--", group)
        require("usermod", "--append", "--groups", group, "--", name)
    sync(Path("/etc"))
    if not system and not Path(home).is_dir():
        _make_home(account, Path(home))
    if keys is not None and not _has_keys(account, home, keys):
        text = "".join(f"{key}\n" for key in keys)
        as_account(account, lambda: _write_keys(Path(home), text))


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group_exists(name: str) -> bool:
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False


def _group_name(gid: int) -> str:
    """Get a group's name; '' for a group that is not there."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _missing_groups(account: pwd.struct_passwd, groups: Sequence[str]) -> list[str]:
    has = {_group_name(gid) for gid in os.getgrouplist(account.pw_name, account.pw_gid)}
    return [group for group in groups if group not in has]


def _is_half_made(account: pwd.struct_passwd) -> bool:
    """Find an account whose useradd(8) was killed: it writes passwd, shadow, group and gshadow in turn.

    An account of a directory service is not in /etc/passwd, and is never half made.
    """
    if account.pw_name not in _names("passwd"):
        return False
    group = _group_name(account.pw_gid)
    if not group or not _is_in_shadow("shadow", account.pw_name):
        return True
    return group in _names("group") and not _is_in_shadow("gshadow", group)


def _is_in_shadow(file: str, name: str) -> bool:
    return not Path("/etc", file).is_file() or name in _names(file)


def _names(file: str) -> set[str]:
    text = Path("/etc", file).read_bytes().decode(errors="replace")
    return {line.partition(":")[0] for line in text.splitlines() if ":" in line}


def _complete(account: pwd.struct_passwd) -> None:
    if not _group_name(account.pw_gid):
        require("groupadd", "--gid", str(account.pw_gid), "--", account.pw_name)
    require("grpconv")
    if not _is_in_shadow("shadow", account.pw_name):
        require("pwconv")
        require("usermod", "--password", "*", "--", account.pw_name)


def _make_home(account: pwd.struct_passwd, home: Path) -> None:
    """Copy /etc/skel beside `home`, sync it, and rename it: useradd(8) does not sync what it copies."""
    new = home.with_name(f".{home.name}.new")
    if new.exists():
        shutil.rmtree(new)
    skeleton = Path("/etc/skel")
    if skeleton.is_dir():
        shutil.copytree(skeleton, new, symlinks=True)
    else:
        new.mkdir()
    new.chmod(0o750)
    for folder, folders, files in os.walk(new, topdown=False):
        for path in [*(Path(folder, name) for name in (*folders, *files)), Path(folder)]:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
            if not path.is_symlink():
                sync(path)
    new.rename(home)
    sync(home.parent)


def _has_keys(account: pwd.struct_passwd, home: str, keys: Sequence[str] | None) -> bool:
    if keys is None:
        return True
    found = _read_keys(account, home)
    return found is not None and found.rstrip("\n") == "\n".join(keys)


def _read_keys(account: pwd.struct_passwd, home: str) -> str | None:
    """Read authorized_keys with the rights of its account, as sshd(8) does.

    '' when it cannot be read; None when it is wrong, whatever is in it: also the account's own that it
    has made unreadable. Only files that are not simply the account's own need a child for that.
    """
    with suppress(PermissionError):
        return _contents(home, account.pw_uid)
    answer: str | None = as_account(account, lambda: _contents(home, None))
    return answer


def _contents(home: str, owner: int | None) -> str | None:
    """Read authorized_keys as `_read_keys` says.

    owner: raise PermissionError for what this user cannot read as its owner.
    """
    with ExitStack() as opened:
        try:
            file = _opened(home, owner, opened)
        except FileNotFoundError:
            return ""
        except PermissionError:
            if owner is None:
                return ""
            raise
        except (
            OSError
        ):  # a link (ELOOP), no folder (ENOTDIR), a socket (ENXIO), a lease (EWOULDBLOCK), a mode
            return None
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_size > KEYS_SIZE:
            return None
        data = os.read(file, KEYS_SIZE + 1)
    return data.decode(errors="surrogateescape") if len(data) <= KEYS_SIZE else None


def _opened(home: str, owner: int | None, opened: ExitStack) -> int:
    """Open authorized_keys through no link below `home`, and wait for nothing. Raises OSError."""
    folder: int | None = None
    for name, flags, needed in (
        (home, os.O_PATH | os.O_DIRECTORY, stat.S_IXUSR),
        (".ssh", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, stat.S_IXUSR),
        ("authorized_keys", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, stat.S_IRUSR),
    ):
        folder = descriptor = os.open(name, flags | os.O_CLOEXEC, dir_fd=folder)
        opened.callback(os.close, descriptor)
        about = os.fstat(descriptor)
        if owner is not None and about.st_uid != owner:
            raise PermissionError(name)
        if owner is not None and not about.st_mode & needed:
            raise OSError(errno.EINVAL, "its mode is wrong", name)
    return descriptor


def _write_keys(home: Path, text: str) -> None:
    """Put authorized_keys there; what is in its way is moved or removed. Raises OSError.

    It is the account's own file: what the account makes of it afterwards, or keeps doing meanwhile, is
    reported, and is no failure of the machine. Else any account could keep the machine out of service.
    """
    os.umask(0o077)
    folder = home / ".ssh"
    for left in reversed(range(_WRITES)):
        try:
            _open_up(home)
            if not _open_up(folder):
                _clear(folder)
                folder.mkdir()
            new = folder / f".authorized_keys.{os.urandom(8).hex()}"
            write(new, text, 0o600)
            _put(new, folder / "authorized_keys")
        except OSError as error:
            if left:
                continue
            if error.errno in _OF_THE_DISK or home.stat().st_uid != os.geteuid():
                raise
            report(
                f"warning: {folder}/authorized_keys is not put right, as its account keeps changing it: {error}"
            )
        else:
            break


def _put(new: Path, path: Path) -> None:
    """Rename `new` to `path`; exchange it with a folder, which one call does, too. Raises OSError."""
    for left in reversed(range(_RENAMES)):
        try:
            new.replace(path)
        except IsADirectoryError:
            with suppress(FileNotFoundError):
                if not _exchange(new, path):
                    _clear(path)
                    continue
                with suppress(OSError):  # whatever it is now
                    new.rmdir()
                break
            if not left:
                raise
        else:
            break
    sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names (renameat2(2)); return False where the C library or file system cannot. Raises OSError."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _open_up(folder: Path) -> bool:
    """Give the account its rights to a folder of its own; return whether it can be written to."""
    with suppress(FileNotFoundError):
        about = folder.lstat()
        if stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid():
            folder.chmod(stat.S_IMODE(about.st_mode) | stat.S_IRWXU)
        return stat.S_ISDIR(about.st_mode) and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
    return False


def _clear(path: Path) -> None:
    """Remove a file or link. A folder is renamed instead: it may hold any number of files."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.{os.urandom(8).hex()}"))
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(check=check, apply=apply)
