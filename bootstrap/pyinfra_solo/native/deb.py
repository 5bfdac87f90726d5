"""Facts of pyinfra.facts.deb, from dpkg's own database."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native.server import found

_STATUS = re.compile(
    rb"^Package: (\S+)\n(?:.+\n)*?Status: (\S+) \S+ (\S+)\n(?:.+\n)*?Version: (\S+)$", re.MULTILINE
)


def _packages() -> Any:
    """What `dpkg -l` says of packages that are installed, from dpkg's own database (dpkg(1), FILES)."""
    if not found("dpkg") or any(Path("/var/lib/dpkg/updates").iterdir()):
        return UNKNOWN
    packages: dict[str, set[str]] = {}
    for stanza in Path("/var/lib/dpkg/status").read_bytes().split(b"\n\n"):
        fields = _STATUS.search(stanza)
        if fields and fields[2] in (b"install", b"hold") and fields[3] == b"installed":
            packages.setdefault(fields[1].decode(), set()).add(fields[4].decode())
    return packages


VALUES: dict[str, Callable[..., Any]] = {"DebPackages": _packages}
"""Fact -> what gives its value, with the arguments of the fact's own `command`."""
