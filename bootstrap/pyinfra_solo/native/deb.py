"""Answer facts of pyinfra.facts.deb from dpkg's own database."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native.server import find_program

_STATUS = re.compile(
    rb"^Package: (\S+)\n(?:.+\n)*?Status: (?:install|hold) ok installed\n"
    rb"(?:.+\n)*?Architecture: [a-z0-9]+\n(?:.+\n)*?Version: ([a-zA-Z0-9:~.+-]+)$",
    re.MULTILINE,
)
_INSTALLED = re.compile(rb"^Status: (?:install|hold) ok installed$", re.MULTILINE)


def _packages() -> Any:
    """Return the installed packages and their versions, as `dpkg -l` lists them (dpkg(1), FILES)."""
    if not find_program("dpkg") or any(Path("/var/lib/dpkg/updates").iterdir()):
        return UNKNOWN
    # These change the width of `dpkg -l`, and its database (dpkg-query(1), ENVIRONMENT).
    if any(name == "COLUMNS" or name.startswith("DPKG_") for name in os.environ):
        return UNKNOWN
    packages: dict[str, set[str]] = {}
    for stanza in Path("/var/lib/dpkg/status").read_bytes().split(b"\n\n"):
        if not _INSTALLED.search(stanza):
            continue
        fields = _STATUS.search(stanza)
        if not fields:
            return UNKNOWN
        packages.setdefault(fields[1].decode(), set()).add(fields[2].decode())
    return packages


FACT_VALUE: dict[str, Callable[..., Any]] = {"DebPackages": _packages}
"""Fact -> function of the arguments of its `command` that returns its value."""
