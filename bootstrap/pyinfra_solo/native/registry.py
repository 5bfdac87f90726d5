"""Find the native answer of a fact. All answers are off unless pyinfra is a verified release.

A native answer replaces a fact's shell command, and relies on what pyinfra makes of its output. So it
holds only for pyinfra's modules as they were when the answers were compared with them.
"""

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pyinfra

from pyinfra_solo.native import UNKNOWN

VERIFIED = {"3.10.0": "e2126c01f5288d6d"}
"""Version of pyinfra -> `digest` of its RECORD. tests/native/test_registry.py says how to add one."""

MODULES = (
    "api/arguments.py",
    "api/command.py",
    "api/facts.py",
    "api/util.py",
    "facts/deb.py",
    "facts/files.py",
    "facts/server.py",
    "facts/systemd.py",
    "facts/util/packaging.py",
)
"""Modules of pyinfra that decide what a fact's command is, and what its value means."""

_FACTS = "pyinfra.facts."
_ANSWERED = ("deb", "files", "server", "systemd")


@cache
def off_reason() -> str | None:
    """Return why native facts and commands are off as a whole, or None when they are on."""
    try:
        expected = VERIFIED.get(pyinfra.__version__)
        if expected and digest(_record().read_text()) == expected:
            return None
    except (OSError, ValueError):  # not installed as a wheel
        pass
    versions = " or ".join(VERIFIED)
    return f"native facts off: this pyinfra is not {versions} as verified; using shell commands"


def _record() -> Path:
    """Return the path of the installed pyinfra's list of files and their digests (PEP 376)."""
    folder = Path(pyinfra.__path__[0])
    return folder.with_name(f"pyinfra-{pyinfra.__version__}.dist-info") / "RECORD"


def digest(record: str) -> str:
    """Return a digest of the lines of `record` about MODULES. Raises ValueError when one is missing."""
    wanted = tuple(f"pyinfra/{name},sha256=" for name in MODULES)
    lines = sorted(line for line in record.splitlines() if line.startswith(wanted))
    if len(lines) != len(MODULES):
        raise ValueError("modules of pyinfra are not in its RECORD")
    return hashlib.blake2s("\n".join(lines).encode(), digest_size=8).hexdigest()


@cache
def answer_to(fact: type) -> Callable[..., Any] | None:
    """Return the function that answers `fact`, or None when it has no native answer.

    The function takes the arguments of the fact's `command`, and returns a value or UNKNOWN.
    """
    if off_reason():
        return None
    module, name = fact.__module__, fact.__name__
    if module.startswith("pyinfra_solo.") and hasattr(fact, "native"):
        return _unknown_on_error(fact.native)
    if module.removeprefix(_FACTS) not in _ANSWERED or getattr(sys.modules[module], name, None) is not fact:
        return None
    ours = import_module(f"pyinfra_solo.native.{module.removeprefix(_FACTS)}")
    if value := getattr(ours, "FACT_VALUE", {}).get(name):
        return _unknown_on_error(value)
    if output := getattr(ours, "COMMAND_OUTPUT", {}).get(name):
        return _unknown_on_error(_processed(fact, output))
    return None


def _processed(fact: type[Any], output: Callable[..., Any]) -> Callable[..., Any]:
    def value(**arguments: Any) -> Any:
        lines = output(**arguments)
        if lines is UNKNOWN:
            return UNKNOWN
        return fact().process(lines) if lines else fact().default()

    return value


def _unknown_on_error(answer: Callable[..., Any]) -> Callable[..., Any]:
    def value(**arguments: Any) -> Any:
        try:
            return answer(**arguments)
        except Exception:  # noqa: BLE001 - fall back; the shell command fails with the tool's own message
            return UNKNOWN

    return value
