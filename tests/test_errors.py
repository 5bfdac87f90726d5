"""The exit statuses are an interface: units retry by them, and scripts and the README name them."""

from __future__ import annotations

import re

import pytest

from pyinfra_solo import errors
from pyinfra_solo.errors import SoloError
from tests.support.machine import ENGINE, REPOSITORY

README = REPOSITORY / "README.md"
UNITS = ENGINE / "pyinfra_solo/units"
ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SoloError)]
OWN = {
    "SoloError": (1, True),
    "ConvergeError": (1, True),
    "SourceError": (10, True),
    "IdentityError": (10, True),
    "TrustError": (11, False),
    "RoleError": (12, False),
    "DataError": (13, False),
    "LockedError": (20, True),
    "PausedError": (21, False),
    "DeadlineError": (22, True),
    "JudgedError": (30, True),
    "DiskError": (1, True),
    "UsageError": (64, False),
}
"""The exit status of each error, and whether a retry without any change can help."""
HOPELESS = {kind.exit_code for kind in ALL if not kind.retry}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_error_has_its_published_exit_status_and_advice(kind: type[SoloError]) -> None:
    assert (kind.exit_code, kind.retry) == OWN[kind.__name__]


def test_no_error_has_the_exit_status_of_success_or_of_a_plan() -> None:
    """`plan` ends with 2 when changes are pending."""
    assert not {0, 2} & {kind.exit_code for kind in ALL}


def test_errors_with_one_exit_status_have_one_advice() -> None:
    """A unit sees the status alone: RestartPreventExitStatus cannot tell two errors with 10 apart."""
    assert HOPELESS.isdisjoint(kind.exit_code for kind in ALL if kind.retry)


def test_readme_s_table_is_that_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \|[^|]+\|\s*([^|]*?)\s*\|[^|]*\|$", README.read_text(), re.MULTILINE)
    retried = {int(code): action.startswith("tries again") for code, action in rows}

    assert retried == {kind.exit_code: kind.retry for kind in ALL if raised(kind)}


def raised(kind: type[SoloError]) -> bool:
    """Check that the package uses the error outside of errors.py."""
    modules = [path for path in (ENGINE / "pyinfra_solo").rglob("*.py") if path.name != "errors.py"]
    return any(re.search(rf"\b{kind.__name__}\b", path.read_text()) for path in modules)


@pytest.mark.parametrize(
    ("unit", "line", "ready"),
    [
        ("pyinfra-solo.service", r"^RestartPreventExitStatus=([0-9 ]+)$", set()),
        ("pyinfra-solo.conf", r"^normal exit ([0-9 ]+)$", {0}),
        ("pyinfra-solo-retry", r"case \$code in ([0-9 |]+)\) break", {0}),
    ],
    ids=["systemd", "upstart", "sysv"],
)
def test_boot_run_is_not_retried_when_that_cannot_help(unit: str, line: str, ready: set[int]) -> None:
    found = re.search(line, (UNITS / unit).read_text(), re.MULTILINE)

    assert found
    assert {int(code) for code in re.findall(r"\d+", found[1])} == HOPELESS | ready
