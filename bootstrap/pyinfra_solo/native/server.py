"""Facts of pyinfra.facts.server: the lines that the fact's command would print, read where the command
reads them, and given to the fact's own `process`."""

# A Path costs as much again as the system call, for each of thousands of files.

import grp
import os
import pwd
import re
import stat
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native import programs as child
from pyinfra_solo.native.files import contents, lines_of, usual

_NAME = re.compile(r"[a-z_][a-z0-9_-]*\$?", re.ASCII)
_PROGRAM = re.compile(r"[a-z][a-z0-9._-]*", re.ASCII)
_WORDS_OF_THE_SHELL = frozenset(
    "alias bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc declare dirs disown do done"  # noqa: SIM905 - a text is read more easily
    " echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help history if in jobs"
    " kill let local logout mapfile popd printf pushd pwd read readarray readonly return select set shift shopt source"
    " suspend test then time times trap true type typeset ulimit umask unalias unset until wait while".split()
)
"""Builtins and reserved words of dash and bash: `command -v` names them and no file."""


def _temporary() -> list[str]:
    """The first of three variables that names a folder which may be written."""
    for name in ("TMPDIR", "TMP", "TEMP"):
        folder = os.environ.get(name)
        if folder and os.path.isdir(folder) and os.access(folder, os.W_OK):
            return [_said(folder)]
    return [""]


def _said(text: str) -> str:
    """As echo(1) says it, which in some shells knows escapes by a backslash. Raises ValueError when it might not."""
    if "\\" in text or text.startswith("-") or not text.isprintable():
        raise ValueError(text)
    return text


def _read(path: str) -> list[str]:
    """As `cat` prints a file that the kernel or the system's own tools write. Raises OSError and UnicodeDecodeError."""
    return lines_of(Path(path).read_bytes())


def _file_lines(path: str) -> Callable[[], list[str]]:
    return partial(_read, path)


def _uname(field: str) -> Callable[[], list[str]]:
    return lambda: [str(getattr(os.uname(), field))]


def found(program: str) -> str | None:
    """Where a shell finds `program`, by PATH; None when nowhere."""
    for folder in os.environ.get("PATH", "").split(":"):
        path = f"{folder}/{program}"
        try:
            about = os.stat(path)
        except OSError:
            continue
        if folder and stat.S_ISREG(about.st_mode):
            return path if os.access(path, os.X_OK) else None
    return None


def _which(command: str) -> Any:
    if not isinstance(command, str) or not _PROGRAM.fullmatch(command) or command in _WORDS_OF_THE_SHELL:
        return UNKNOWN
    folders = os.environ.get("PATH", "").split(":")
    # Where a folder ends with a slash, shells write one or two; other shells have other words of their own.
    if (
        not all(folder.startswith("/") and not folder.endswith("/") for folder in folders)
        or not _usual_shell()
    ):
        return UNKNOWN
    path = found(command)
    return [path] if path else _not_executable(command)


def _not_executable(command: str) -> Any:
    """Shells differ about a file of that name which may not be executed."""
    folders = os.environ.get("PATH", "").split(":")
    return UNKNOWN if any(os.path.lexists(f"{folder}/{command}") for folder in folders) else []


def _usual_shell() -> bool:
    return os.path.basename(os.path.realpath("/bin/sh")) in ("dash", "bash")


def _home(user: str = "") -> Any:
    """`~user` of an account that is not there stays as it is written (sh(1), tilde expansion)."""
    if not user:
        home = os.environ.get("HOME")
        return [_said(home)] if home else UNKNOWN
    if not isinstance(user, str) or not _NAME.fullmatch(user):
        return UNKNOWN
    try:
        home = pwd.getpwnam(user).pw_dir
    except KeyError:
        return [f"~{user}"]
    return [_said(home)] if home else UNKNOWN


def _authorized_keys(user: str, path: str | None = None) -> Any:  # noqa: ARG001 - the fact's own arguments
    if path is None or not usual(path):
        return UNKNOWN
    return lines_of(contents(path) or b"")


def _hosts(path: str = "/etc/hosts") -> Any:
    return _read(path) if path == "/etc/hosts" else UNKNOWN


def _modules() -> list[str]:
    """A kernel that cannot load any has no such file."""
    return _read("/proc/modules") if os.path.isfile("/proc/modules") else []


def _sysctl(keys: list[str] | None = None) -> Any:
    """`sysctl KEY...`: a dot stands for a slash, several lines are several `key = value` (sysctl(8))."""
    if not keys or isinstance(keys, str) or not found("sysctl"):
        return UNKNOWN
    said = []
    for key in keys:
        if not isinstance(key, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+", key, re.ASCII):
            return UNKNOWN
        path = Path("/proc/sys") / key.replace(".", "/")
        # What nobody may read root can, and sysctl leaves it out.
        if not path.is_file() or not path.stat().st_mode & stat.S_IRUSR:
            return UNKNOWN
        text = path.read_bytes().decode()
        if text.count("\n") != 1 or not text.endswith("\n"):
            return UNKNOWN
        said.append(f"{key} = {text[:-1]}")
    return said


def _users() -> Any:
    """The lines of the fact's loop over /etc/passwd: ENTRY|GROUP|GROUPS|LASTLOG|PASSWORD."""
    entries = [line for line in _read("/etc/passwd") if line]
    names = [entry.split(":", 1)[0] for entry in entries]
    if (
        len(set(names)) != len(names)
        or not all(map(_NAME.fullmatch, names))
        or any("$" in name for name in names)
    ):
        return UNKNOWN
    passwords = _passwords()
    # The fact says them by echo(1), which in some shells knows escapes by a backslash.
    if any("\\" in said for said in (*entries, *passwords.values())) or not _lastlog_is_usual():
        return UNKNOWN
    return [
        f"{entry}|{_group_names(name)}|{_last_login(name, entry)}|{passwords.get(name, '')}"
        for entry, name in zip(entries, names, strict=True)
    ]


def _passwords() -> dict[str, str]:
    try:
        rows = [line.split(":") for line in _read("/etc/shadow")]
    except FileNotFoundError:
        return {}
    passwords = {row[0]: row[1] for row in rows if len(row) > 1}
    if len(passwords) != len(rows):
        raise ValueError("/etc/shadow has a line of its own kind, or two for one account")
    return passwords


def _group_names(name: str) -> str:
    """`id -gn NAME` and `id -Gn NAME`. Raises KeyError for a group without a name."""
    first = pwd.getpwnam(name).pw_gid
    others = [gid for gid in os.getgrouplist(name, first) if gid != first]
    names = [grp.getgrgid(gid).gr_name for gid in [first, *others]]
    return f"{names[0]}|{' '.join(names)}"


_LASTLOG = struct.Struct("=i32s256s")
"""A record of /var/log/lastlog (lastlog.h); the user's number is its place."""


def _lastlog_is_usual() -> bool:
    """lastlog2 has another file; a `lastlogin` is asked when `lastlog` fails."""
    program = found("lastlog")
    return not found("lastlogin") and (
        not program or os.path.basename(os.path.realpath(program)) == "lastlog"
    )


def _last_login(name: str, entry: str) -> str:
    """As `lastlog -u NAME | grep ^NAME | tr -s ' '`, which is asked only of who has ever logged in."""
    if not found("lastlog"):
        return ""
    uid = int(entry.split(":")[2])
    try:
        with open("/var/log/lastlog", "rb") as opened:
            opened.seek(uid * _LASTLOG.size)
            record = opened.read(_LASTLOG.size)
    except FileNotFoundError:
        return ""
    if len(record) < _LASTLOG.size or _LASTLOG.unpack(record)[0] == 0:
        return f"{name} **Never logged in**"
    said = lines_of(child.said(["lastlog", "-u", name]))
    return "".join(re.sub(" +", " ", line) for line in said if line.startswith(name))


LINES: dict[str, Callable[..., Any]] = {
    "Hostname": _uname("nodename"),
    "Kernel": _uname("sysname"),
    "Os": _uname("sysname"),
    "KernelVersion": _uname("release"),
    "OsVersion": _uname("release"),
    "Arch": _uname("machine"),
    "Groups": _file_lines("/etc/group"),
    "Mounts": _file_lines("/proc/self/mountinfo"),
    "KernelModules": _modules,
    "EtcHosts": _hosts,
    "Users": _users,
    "Home": _home,
    "TmpDir": _temporary,
    "Which": _which,
    "Sysctl": _sysctl,
    "AuthorizedKeys": _authorized_keys,
}
"""Fact -> what gives its command's output, with the arguments of the fact's own `command`."""
