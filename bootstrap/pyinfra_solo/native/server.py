"""Answer facts of pyinfra.facts.server: the lines that the fact's command would print.

The lines are read where the command reads them; pyinfra's own `process` parses them.
"""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import grp
import os
import pwd
import re
import stat
from collections.abc import Callable
from typing import Any

from pyinfra_solo.native import UNKNOWN, programs
from pyinfra_solo.native.files import lines_of

_NAME = re.compile(r"[a-z_][a-z0-9_-]*", re.ASCII)


def find_program(name: str) -> str | None:
    """Return the path where a shell finds the program `name` by PATH, or None."""
    for folder in os.environ.get("PATH", "").split(":"):
        path = f"{folder}/{name}"
        try:
            status = os.stat(path)
        except OSError:
            continue
        if folder and stat.S_ISREG(status.st_mode):
            return path if os.access(path, os.X_OK) else None
    return None


def _tmp_dir() -> list[str]:
    """Return the first of three variables that names a writable folder. Raises ValueError."""
    for name in ("TMPDIR", "TMP", "TEMP"):
        folder = os.environ.get(name)
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK):
            # echo(1) of some shells reads escapes after a backslash, and options after a minus.
            if "\\" in folder or folder.startswith("-") or not folder.isprintable():
                raise ValueError(folder)
            return [folder]
    return [""]


def _read(path: str) -> list[str]:
    with open(path, "rb") as opened:
        return lines_of(opened.read())


def _users() -> Any:
    """Return the lines of the fact's loop over /etc/passwd: ENTRY|GROUP|GROUPS|LASTLOG|PASSWORD."""
    entries = [line for line in _read("/etc/passwd") if line]
    names = [entry.split(":", 1)[0] for entry in entries]
    uids = {entry.split(":")[2] for entry in entries}
    # lastlog(8) and id(1) tell accounts of one name, or of one number, not apart.
    if not len(set(names)) == len(uids) == len(entries) or not all(map(_NAME.fullmatch, names)):
        return UNKNOWN
    passwords = _passwords()
    # The fact prints them by echo(1), which in some shells reads escapes after a backslash.
    if any("\\" in text for text in (*entries, *passwords.values())):
        return UNKNOWN
    logins = _logins()
    return [
        f"{entry}|{_group_names(name)}|{logins.get(name, '')}|{passwords.get(name, '')}"
        for entry, name in zip(entries, names, strict=True)
    ]


def _passwords() -> dict[str, str]:
    try:
        rows = [line.split(":") for line in _read("/etc/shadow")]
    except FileNotFoundError:
        return {}
    passwords = {row[0]: row[1] for row in rows if len(row) > 1}
    if len(passwords) != len(rows):
        raise ValueError("/etc/shadow has a line without a password field, or two for one account")
    return passwords


def _group_names(name: str) -> str:
    """Return `id -gn NAME` and `id -Gn NAME`. Raises KeyError for a group without a name."""
    first = pwd.getpwnam(name).pw_gid
    others = [gid for gid in os.getgrouplist(name, first) if gid != first]
    names = [grp.getgrgid(gid).gr_name for gid in [first, *others]]
    return f"{names[0]}|{' '.join(names)}"


def _logins() -> dict[str, str]:
    """Return `lastlog -u NAME | grep ^NAME | tr -s ' '` of each account, by one lastlog(8) for all.

    Raises ValueError for another lastlog, and CalledProcessError: the fact asks lastlogin(8) then.
    """
    program = find_program("lastlog")
    if find_program("lastlogin") or (program and os.path.basename(os.path.realpath(program)) != "lastlog"):
        raise ValueError("lastlogin, or lastlog of another package")
    if not program:
        return {}
    try:
        if os.stat("/var/log/lastlog").st_size == 0:
            return {}  # the fact's value has only those who have logged in
    except FileNotFoundError:
        return {}
    lines = lines_of(programs.stdout_of([program]))[1:]
    return {line.split(" ", 1)[0]: re.sub(" +", " ", line) for line in reversed(lines)}


COMMAND_OUTPUT: dict[str, Callable[..., Any]] = {
    "Groups": lambda: _read("/etc/group"),
    "Os": lambda: [os.uname().sysname],
    "TmpDir": _tmp_dir,
    "Users": _users,
}
"""Fact -> function of the arguments of its `command` that returns the command's output lines."""
