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
    re.compile(r"\b(error|fatal|critical|panic|failed)\b", re.IGNORECASE),
    re.compile(r"\S"),
)
"""The kinds of lines that tell most, the best first: the end of a Python traceback comes first."""
_FILES = {"upstart": "/var/log/upstart/{}.log", "sysv": "/var/log/{}.log"}


def log_place(init: str, name: str) -> str:
    """Name where the service's log is: a command, or a path. init: systemd, upstart or sysv."""
    return _FILES[init].format(name) if init in _FILES else f"journalctl -u {name}"


def last_words(init: str, name: str) -> str:
    """Return the last telling line of the service's log, or "". It may hold what the service shows."""
    text = _file(log_place(init, name)) if init in _FILES else _journal(name)
    lines = [_shown(line) for line in text.splitlines()[-_LINES:]]
    fit = [line for line in lines if len(line) <= _LONGEST]
    for telling in _TELLING:
        if found := [line for line in fit if telling.search(line)]:
            return found[-1].rstrip(".")
    return ""


def _shown(line: str) -> str:
    """Make a line printable, without user and password of a URL."""
    plain = "".join(character if character.isprintable() else " " for character in line)
    return re.sub(r"(?<=://)[^/\s]*@", "", " ".join(plain.split()))


def _journal(name: str) -> str:
    """Read what the service's own processes wrote, not what systemd says about it (systemd.journal-fields(7))."""
    words = [
        "timeout",
        "10",
        "journalctl",
        "--quiet",
        "--no-pager",
        "--boot",
        "--since=-10min",
        "--output=cat",
    ]
    words += [f"--lines={_LINES}", f"_SYSTEMD_UNIT={name.removesuffix('.service')}.service"]
    try:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return ""
    with child:
        text = child.stdout.read(_TAIL) if child.stdout else b""
        child.kill()
    return text.decode(errors="replace")


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
        return os.pread(descriptor, _TAIL, max(0, about.st_size - _TAIL)).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
