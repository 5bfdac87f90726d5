"""Read dpkg's database: what is installed, and what is half done. Part of the packages program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pyinfra_solo.operations.prelude import query, write

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_INSTALLED = re.compile(rb"^Status: (install|hold) \S+ installed$", re.MULTILINE)


def missing_packages(packages: Sequence[str]) -> list[str]:
    """List the packages that are not installed and configured."""
    database = _database()
    return [name for name in packages if not _is_installed(name, database)]


def is_well(audited: Path) -> bool:
    """Check by `dpkg --audit` that no package is half done.

    audited: notes the state of the database that was last well, as dpkg takes 12 ms for 700 packages.
    """
    try:
        about = (_admin_folder() / "status").stat()
        state = f"{about.st_ino} {about.st_mtime_ns} {about.st_size}\n"
        pending = any((_admin_folder() / "updates").iterdir())
        if not pending and audited.is_file() and audited.read_text() == state:
            return True
    except OSError:
        return True  # there is no dpkg here
    if audit():
        return False
    if not pending:
        with suppress(OSError):  # another than root asks
            audited.parent.mkdir(parents=True, exist_ok=True)
            write(audited, state, suffix=f".{os.getpid()}.new")
    return True


def audit() -> str:
    """Return what dpkg finds wrong with packages, such as one that is only half configured; or ""."""
    return query("dpkg", "--audit").text


def _admin_folder() -> Path:
    return Path(os.environ.get("DPKG_ADMINDIR", "/var/lib/dpkg"))


def _database() -> bytes | None:
    """Read dpkg's database (dpkg(1), FILES). None while it has updates that are not in it yet."""
    folder = _admin_folder()
    try:
        if any((folder / "updates").iterdir()):
            return None
        return b"\n\n" + (folder / "status").read_bytes()
    except OSError:
        return None


def _is_installed(name: str, database: bytes | None) -> bool:
    """Ask the database, or dpkg-query where that does not decide: several architectures, a pattern."""
    if database is not None and _NAME.fullmatch(name):
        stanzas = list(_stanzas(database, name))
        if len(stanzas) < 2:
            return bool(stanzas and _INSTALLED.search(stanzas[0]))
    return bool(re.match("[ih]i", query("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name).text))


def _stanzas(database: bytes, name: str) -> Iterator[bytes]:
    head, at = f"\n\nPackage: {name}\n".encode(), 0
    while (at := database.find(head, at)) >= 0:
        end = database.find(b"\n\n", at + 2)
        yield database[at : end if end >= 0 else None]
        at += len(head)
