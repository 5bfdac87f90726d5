"""Compute what chmod(1) makes of a mode, as GNU chmod does (coreutils, "File permissions")."""

import re
import stat

_NUMBER = re.compile(r"0*[0-7]{1,4}", re.ASCII)
_CLAUSE = re.compile(r"[ugoa]*(?:[-+=](?:[ugo]|[rwxXst]*))+", re.ASCII)
_OPERATOR = re.compile("[-+=]")
_CHANGE = re.compile(r"([-+=])([ugo]|[rwxXst]*)", re.ASCII)
_ALL = 0o7777
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": _ALL}
_WHAT = {"r": 0o444, "w": 0o222, "x": 0o111, "X": 0, "s": _SPECIAL, "t": stat.S_ISVTX}
_SHIFT = {"u": 6, "g": 3, "o": 0}


def is_understood(mode: str) -> bool:
    return bool(_NUMBER.fullmatch(mode)) or all(_CLAUSE.fullmatch(one) for one in mode.split(","))


def changed(mode: str, old: int, umask: int) -> int:
    """Return the permission bits that `mode`, which is understood, makes of a file's st_mode."""
    is_folder = stat.S_ISDIR(old)
    new = stat.S_IMODE(old)
    if _NUMBER.fullmatch(mode):
        # Two bits of a folder stay, unless the number sets them or has five digits.
        return int(mode, 8) | (new & _SPECIAL if is_folder and len(mode) < 5 else 0)
    for clause in mode.split(","):
        affected = 0
        for one in _OPERATOR.split(clause, maxsplit=1)[0]:
            affected |= _WHO[one]
        for operator, what in _CHANGE.findall(clause):
            new = _apply(operator, _value(what, new, is_folder), affected, new, umask, is_folder)
    return new


def _value(what: str, old: int, is_folder: bool) -> int:
    """Return the bits that the letters stand for, for everyone."""
    if what in _SHIFT and what:
        return 0o111 * (old >> _SHIFT[what] & 7)
    value = 0
    for one in what:
        value |= _WHAT[one]
    return value | 0o111 if "X" in what and (is_folder or old & 0o111) else value


def _apply(operator: str, value: int, affected: int, old: int, umask: int, is_folder: bool) -> int:
    """Return the new bits. affected: 0 when nobody is named; then the umask limits the change."""
    mentioned = affected & value if affected else value
    kept = _SPECIAL & ~mentioned if is_folder else 0
    value &= (affected or ~umask & _ALL) & ~kept
    if operator == "+":
        return old | value
    if operator == "-":
        return old & ~value
    return old & ((~affected if affected else 0) | kept) | value
