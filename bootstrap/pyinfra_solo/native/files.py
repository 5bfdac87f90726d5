"""Facts of pyinfra.facts.files, from lstat(2) and the file's own bytes."""

# A Path costs as much again as the system call, for each of thousands of files.

import grp
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from pyinfra_solo.native import UNKNOWN

_KIND: dict[int, str] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFSOCK: "socket",
}
_PLAIN_NAME = re.compile(r"[ !#-&(-\[\]-~]*", re.ASCII)
"""What `stat -c %N` writes between two quotes as it is: printable, neither a quote nor a backslash."""
_CHANGING = re.compile(r"/(proc|dev|sys)(/|$)")
"""What is there depends on who looks (/proc/self, /dev/fd), or changes while it is looked at."""
_LIKE_STAT = " size="
"""A name that says what stat(1) says would be read by pyinfra as if stat had said it."""


def usual(path: object) -> bool:
    """Whether the shell's tools would be given `path` as it is, would say it as it is (in some shells
    echo(1) knows escapes by a backslash), and would see what this process sees."""
    return (
        isinstance(path, str)
        and path.startswith("/")
        and path.isprintable()
        and "\\" not in path
        and not _CHANGING.search(path)
    )


@cache
def _mode(bits: int) -> int:
    """pyinfra writes a mode as the decimal number that looks like the octal one."""
    return int(f"{bits:o}")


@cache
def _user(uid: int, _as_of: tuple[int, int]) -> str:
    """As `stat -c %U`."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "UNKNOWN"


@cache
def _group(gid: int, _as_of: tuple[int, int]) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return "UNKNOWN"


def forget_names() -> None:
    """Accounts of a directory service may have changed: to be said after every child."""
    _user.cache_clear()
    _group.cache_clear()


def _stamp(path: str) -> tuple[int, int]:
    """What changes with a file, whoever changes it and however (inode(7))."""
    about = os.stat(path)
    return about.st_ctime_ns, about.st_ino


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _about(kind: str, path: str) -> Any:
    """What File, Directory, Link and Socket say: None, False, or what lstat(2) tells."""
    if not usual(path) or _LIKE_STAT in path:
        return UNKNOWN
    try:
        found = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    except OSError:
        return None
    if _LIKE_STAT in target:
        return UNKNOWN
    if _KIND.get(stat.S_IFMT(found.st_mode)) != kind:
        return False
    about: dict[str, Any] = {
        "user": _user(found.st_uid, _stamp("/etc/passwd")),
        "group": _group(found.st_gid, _stamp("/etc/group")),
        "mode": _mode(found.st_mode & 0o7777),
        "atime": _time(found.st_atime_ns // 1_000_000_000),
        "mtime": _time(found.st_mtime_ns // 1_000_000_000),
        "ctime": _time(found.st_ctime_ns // 1_000_000_000),
        "size": found.st_size,
    }
    if kind == "link":
        if not (_PLAIN_NAME.fullmatch(path) and _PLAIN_NAME.fullmatch(target)) or " -> " in path + target:
            return UNKNOWN
        about["link_target"] = target
    return about


def contents(path: str) -> bytes | None:
    """A regular file's bytes; None when there is nothing at `path`. Raises OSError for all else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(descriptor, "rb", buffering=0) as opened:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > _MOST:
            raise OSError(f"{path} is not a file of usual size")
        data = opened.readall()
    if len(data) != about.st_size:
        raise OSError(f"{path} is not what stat(2) says")
    return data


_MOST = 64 * 1024 * 1024
"""Bytes. Of a larger file a child makes the digest, which a time-out can end."""


def _digest(algorithm: Callable[[bytes], Any], path: str) -> Any:
    if not usual(path) or not _PLAIN_NAME.fullmatch(path):
        return UNKNOWN
    data = contents(path)
    return None if data is None else algorithm(data).hexdigest()


def lines_of(data: bytes) -> list[str]:
    """The lines that pyinfra makes of a command's output. Raises UnicodeDecodeError: of other bytes than UTF-8
    it makes what its reader had understood by then (3.10.0)."""
    lines = data.decode().split("\n")
    return lines if lines[-1] else lines[:-1]


def _file_contents(path: str) -> Any:
    if not usual(path):
        return UNKNOWN
    lines = lines_of(contents(path) or b"")
    # Of no output, and of this line, pyinfra makes the fact's default.
    return lines if lines and lines[0] != f"__pyinfra_missing_{path}" else None


_TOKEN = re.compile(r"(\.\*?)|\\([.*\[\]^$/])|([A-Za-z0-9_/:;,=@%~ \"'!<>#&-])", re.ASCII)
"""What means the same in a basic regular expression (grep(1)) and to Python: `.`, `.*`, an escaped
character that is an operator to both, and characters that are operators to neither."""


def _find_in_file(
    path: str, pattern: str, interpolate_variables: bool = False, extended_regex: bool = False
) -> Any:
    if interpolate_variables or extended_regex or not usual(path):
        return UNKNOWN
    regex = _literal(pattern)
    if regex is None:
        return UNKNOWN
    data = contents(path)
    if data is None:
        return UNKNOWN if os.path.lexists(path) else None
    lines = lines_of(data)
    # A NUL makes a file binary to grep; on long lines Python's search may take the square of their length.
    if not data.isascii() or b"\0" in data or max(map(len, lines), default=0) > _LONGEST:
        return UNKNOWN
    found = [line for line in lines if regex.search(line)]
    return [] if found[:1] == [f"__pyinfra_exists_{path}"] else found


_LONGEST = 4096
"""Characters of a line in which a pattern is looked for here."""


def _literal(pattern: str) -> re.Pattern[str] | None:
    """`pattern` as Python's, when every part of it is understood."""
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


VALUES: dict[str, Callable[..., Any]] = {
    "File": partial(_about, "file"),
    "Directory": partial(_about, "directory"),
    "Link": partial(_about, "link"),
    "Socket": partial(_about, "socket"),
    "Md5File": partial(_digest, partial(hashlib.md5, usedforsecurity=False)),
    "Sha1File": partial(_digest, partial(hashlib.sha1, usedforsecurity=False)),
    "Sha256File": partial(_digest, hashlib.sha256),
    "Sha384File": partial(_digest, hashlib.sha384),
    "FileContents": _file_contents,
    "FindInFile": _find_in_file,
}
"""Fact -> what gives its value, with the arguments of the fact's own `command`."""
