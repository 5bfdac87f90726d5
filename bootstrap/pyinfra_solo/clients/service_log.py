"""Find a service's log under each init system, and the lines of it that tell why it fails.

Part of the service program, too: standard library of Python 3.9 alone.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess

_TAIL = 64 * 1024
"""Bytes at the end of a log that are read."""
_LINES = 50
_LONGEST = 300
"""Characters of a line that is shown; longer ones are left out, as a cut could leave half a secret."""
_TELLING = (
    re.compile(r"^(\w+\.)*\w*(Error|Exception|Exit)\b(: |$)"),
    re.compile(r"\.service: Failed to "),
    re.compile(r"\b(error|fatal|critical|panic|failed)\b", re.IGNORECASE),
    re.compile(r"\S"),
)
"""The kinds of lines that tell most, the best first: the end of a Python traceback comes first."""
_OF_SYSTEMD = re.compile(
    r"^\S+\.service: (?!Failed to )|^(Started|Starting|Stopped|Stopping|Failed to start) "
)
"""Lines that systemd writes of every end of a process; but `Failed to set up ...` is a reason."""
_FILES = {"upstart": "/var/log/upstart/{}.log", "sysv": "/var/log/{}.log"}


def log_place(init: str, name: str) -> str:
    """Name where the service's log is: a command, or a path. init: systemd, upstart or sysv."""
    return _FILES[init].format(name) if init in _FILES else f"journalctl -u {name}"


def last_words(init: str, name: str, since: float) -> str:
    """Return the last telling line of the service's log, or "". It may hold what the service shows.

    since: seconds of the epoch; only systemd's journal knows when a line was written.
    """
    text = _file(log_place(init, name)) if init in _FILES else _journal(name, since)
    lines = [_shown(line) for line in text.splitlines()[-_LINES:]]
    fit = [line for line in lines if len(line) <= _LONGEST and not _OF_SYSTEMD.search(line)]
    for telling in _TELLING:
        if found := [line for line in fit if telling.search(line)]:
            return found[-1].rstrip(".")
    return ""


def _shown(line: str) -> str:
    """Make a line printable, without user and password of a URL."""
    plain = "".join(character if character.isprintable() else " " for character in line)
    without_password = re.sub(r"(?<=://)[^/\s]*@", "", " ".join(plain.split()))
    return without_password.replace("/run/systemd/unit-root/", "/")  # systemd's name for the root of a unit


def _journal(name: str, since: float) -> str:
    """Read what the unit's processes wrote, and root's systemd of it (systemd.journal-fields(7)).

    Any account can send a line with a `UNIT` of its choice; fields with `_` are journald's own. A process
    that systemd has just forked for the unit writes, too, so `_PID=1` would be too narrow.
    """
    # Of --since and --lines alone, journalctl 252 takes the first lines, not the last.
    unit = f"{name.removesuffix('.service')}.service"
    words = ["timeout", "10", "journalctl", "--quiet", "--no-pager", "--boot", "--output=cat", "--reverse"]
    words += [
        f"--lines={_LINES}",
        f"--since=@{int(since)}",
        f"_SYSTEMD_UNIT={unit}",
        "+",
        "_UID=0",
        f"UNIT={unit}",
    ]
    try:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return ""
    with child:
        text = child.stdout.read(_TAIL) if child.stdout else b""
        child.kill()
    if len(text) == _TAIL:  # half a line could be half a secret
        text = text.rpartition(b"\n")[0]
    return "\n".join(reversed(text.decode(errors="replace").splitlines()))


def _file(path: str) -> str:
    """Read the end of a regular file, through no link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return ""
        text = os.pread(descriptor, _TAIL, max(0, about.st_size - _TAIL)).decode(errors="replace")
        return text.partition("\n")[2] if about.st_size > _TAIL else text
    except OSError:
        return ""
    finally:
        os.close(descriptor)
