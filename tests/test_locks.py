"""The lock files: complete, with hashes, and in step with the project."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pyinfra_solo.clients import lockfile
from tests.support.machine import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
LOCKS = ("requirements.lock", "requirements-dev.lock", "bootstrap/uv.txt", "tests/app/requirements.lock")
PIN = re.compile(r"^([\w.-]+)==(\S+)(.*\n(?:    .*\n)*)", re.MULTILINE)
"""A package, its version, and the rest of its lines."""


def pinned(name: str) -> dict[str, set[str]]:
    """Read the versions of each package in a lock file: several, where its platforms differ."""
    found: dict[str, set[str]] = {}
    for package, version, _ in PIN.findall((REPOSITORY / name).read_text()):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_lock_pins_every_package_with_hashes_and_names_no_index(name: str) -> None:
    path = REPOSITORY / name
    text = path.read_text()

    assert lockfile.count(path.read_bytes(), path)
    assert not re.search(r"https?://|file:|--index|--find-links", text)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]),
    ],
)
def test_lock_is_in_step_with_the_project(name: str, wanted: list[str]) -> None:
    versions = pinned(name)
    for line in wanted:
        requirement = Requirement(line)
        found = versions.get(canonicalize_name(requirement.name), set())
        assert found, f"{requirement.name} is not in {name}"
        assert all(requirement.specifier.contains(version) for version in found), line


def test_tests_run_with_the_packages_of_machines() -> None:
    machines, tests = pinned("requirements.lock"), pinned("requirements-dev.lock")

    assert {name: tests.get(name) for name in machines} == machines


def test_compiled_packages_are_locked_for_every_architecture() -> None:
    """A lock for one architecture has one or two hashes of each; one for all has them all."""
    pins = PIN.findall((REPOSITORY / "requirements.lock").read_text())
    hashes = {name: rest.count("--hash=") for name, _, rest in pins}

    assert min(hashes[name] for name in ("msgspec", "cryptography", "gevent", "markupsafe")) > 10
