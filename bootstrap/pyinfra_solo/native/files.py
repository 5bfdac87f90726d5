"""Answer facts of pyinfra.facts.files from lstat(2) and the file's bytes."""

# No pathlib: a Path costs as much as the system call itself, for each of thousands of files.

import grp
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native.held import holding

_KIND: dict[int, str] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
_PLAIN_NAME = re.compile(r"[ !#-&(-\[\]-~]*", re.ASCII)
"""Names that `stat -c %N` prints unchanged between two quotes: no quote, no backslash, all printable."""
_KERNEL_FOLDERS = re.compile(r"/(proc|dev|sys)(/|$)")
"""Their contents depend on the process that reads (/proc/self, /dev/fd), or change while it reads."""
_STAT_FIELD = " size="
"""pyinfra would parse a name that contains this as output of stat(1)."""


def is_plain(path: object) -> bool:
    """Tell whether a shell's tools would take and print `path` unchanged, and see the same file.

    echo(1) of some shells reads escapes after a backslash.
    """
    return (
        isinstance(path, str)
        and path.startswith("/")
        and path.isprintable()
        and "\\" not in path
        and not _KERNEL_FOLDERS.search(path)
    )


@cache
def _mode(bits: int) -> int:
    """Return the decimal number that reads like the octal mode, as pyinfra writes modes."""
    return int(f"{bits:o}")


@cache
def _name(entry_of: Callable[[int], Sequence[Any]], number: int, _as_of: tuple[int, int]) -> Any:
    """Return the account's or group's name, as `stat -c %U` and `%G` print it."""
    try:
        return entry_of(number)[0]
    except KeyError:
        return "UNKNOWN"


forget_names = _name.cache_clear
"""Forget account names. Call it after each child: a directory service may have changed them."""


def _version(path: str) -> tuple[int, int]:
    """Return values that differ after any change of the file (inode(7))."""
    status = os.stat(path)
    return status.st_ctime_ns, status.st_ino


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _status(kind: str, path: str) -> Any:
    """Return a fact File, Directory or Link: a status, None for no file, or False for another kind."""
    if not is_plain(path) or _STAT_FIELD in path:
        return UNKNOWN
    try:
        found = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    except OSError:
        return None
    if _STAT_FIELD in target:
        return UNKNOWN
    if _KIND.get(stat.S_IFMT(found.st_mode)) != kind:
        return False
    status: dict[str, Any] = {
        "user": _name(pwd.getpwuid, found.st_uid, _version("/etc/passwd")),
        "group": _name(grp.getgrgid, found.st_gid, _version("/etc/group")),
        "mode": _mode(found.st_mode & 0o7777),
        "atime": _time(found.st_atime_ns // 1_000_000_000),
        "mtime": _time(found.st_mtime_ns // 1_000_000_000),
        "ctime": _time(found.st_ctime_ns // 1_000_000_000),
        "size": found.st_size,
    }
    if kind == "link":
        if not (_PLAIN_NAME.fullmatch(path) and _PLAIN_NAME.fullmatch(target)) or " -> " in path + target:
            return UNKNOWN
        status["link_target"] = target
    return status


def contents(path: str) -> bytes | None:
    """Return a regular file's bytes, or None for no file. Raises OSError for all else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_SIZE:
            raise OSError(f"{path} is not a regular file of at most {_MAX_SIZE} bytes")
        data = opened.read(status.st_size + 1)  # its owner may let it grow meanwhile
    if len(data) != status.st_size:
        raise OSError(f"{path} has another length than stat(2) gives")
    return data


def read(path: str) -> bytes:
    """Return a regular file's bytes, as many as it has when it is opened, _MAX_SIZE at most.

    Raises OSError, for a longer file, too, and RefusedError. A pipe or device could hold up the reader, and have no end. A file of /proc has no length.
    """
    with holding(path) as held:
        if held.status and not stat.S_ISREG(held.status.st_mode):
            raise OSError(f"{path} is not a regular file. Read it by a command, such as server.shell.")
        held.check_names()
        with open(os.open(held.reached, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
            data = opened.read(min(os.fstat(opened.fileno()).st_size or _TOO_MUCH, _TOO_MUCH))
    if len(data) == _TOO_MUCH:
        raise OSError(
            f"{path} has more than {_MAX_SIZE // 1024**2} MiB, the most that files.get reads. Copy it by a command, such "
            "as server.shell."
        )
    return data


_MAX_SIZE = 64 * 1024 * 1024
"""Bytes. A larger file is read by a child, which a time-out can end."""
_TOO_MUCH = _MAX_SIZE + 1


def _sha1(path: str) -> Any:
    if not is_plain(path) or not _PLAIN_NAME.fullmatch(path):
        return UNKNOWN
    data = contents(path)
    return None if data is None else hashlib.sha1(data, usedforsecurity=False).hexdigest()


def lines_of(data: bytes) -> list[str]:
    """Split a command's output into lines, as pyinfra does.

    Raises UnicodeDecodeError: of other bytes pyinfra keeps the part before them (3.10.0).
    """
    lines = data.decode().split("\n")
    return lines if lines[-1] else lines[:-1]


_TOKEN = re.compile(r"(\.\*?)|\\([.*\[\]^$/])|([A-Za-z0-9_/:;,=@%~ \"'!<>#&-])", re.ASCII)
"""Matches what means the same in a basic regular expression (grep(1)) and in Python.

That is `.`, `.*`, an escaped operator of both, and characters that are operators in neither.
"""


def _find_in_file(
    path: str, pattern: str, interpolate_variables: bool = False, extended_regex: bool = False
) -> Any:
    if interpolate_variables or extended_regex or not is_plain(path):
        return UNKNOWN
    regex = _literal(pattern)
    if regex is None:
        return UNKNOWN
    data = contents(path)
    if data is None:
        return UNKNOWN if os.path.lexists(path) else None
    if len(data) > _MAX_SEARCHED:
        return UNKNOWN
    lines = lines_of(data)
    # grep takes a file with a NUL for binary. Python's search may take the square of a line's length.
    if not data.isascii() or b"\0" in data or max(map(len, lines), default=0) > _MAX_LINE:
        return UNKNOWN
    found = [line for line in lines if regex.search(line)]
    return [] if found[:1] == [f"__pyinfra_exists_{path}"] else found


_MAX_SEARCHED = 4 * 1024 * 1024
"""Bytes. Of lines of one character, Python's objects take 30 times as much."""
_MAX_LINE = 4096
"""Characters of a line that is searched here."""


def _literal(pattern: str) -> re.Pattern[str] | None:
    """Translate grep's pattern into Python's, or return None when a part of it may differ."""
    head, tail = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    rest = pattern[head : len(pattern) - tail]
    parts, at = [], 0
    while at < len(rest):
        token = _TOKEN.match(rest, at)
        if not token:
            return None
        parts.append(token[1] or re.escape(token[2] or token[3]))
        at = token.end()
    return re.compile(f"{'^' * head}{''.join(parts)}{'$' * tail}", re.ASCII)


FACT_VALUE: dict[str, Callable[..., Any]] = {
    "File": partial(_status, "file"),
    "Directory": partial(_status, "directory"),
    "Link": partial(_status, "link"),
    "Sha1File": _sha1,
    "FindInFile": _find_in_file,
}
"""Fact -> function of the arguments of its `command` that returns its value."""
