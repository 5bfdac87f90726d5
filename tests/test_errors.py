"""The exit statuses are the operator's interface: units restart by them, and scripts read them."""

from __future__ import annotations

import re

import pytest

from pyinfra_solo import errors
from pyinfra_solo.errors import SoloError
from tests.support.machine import ENGINE, REPOSITORY

README = REPOSITORY / "README.md"
ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SoloError)]
OWN = {
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


@pytest.mark.parametrize(
    "kind", [kind for kind in ALL if kind is not SoloError], ids=lambda kind: kind.__name__
)
def test_each_failure_has_the_exit_status_and_the_advice_that_the_house_gives_it(
    kind: type[SoloError],
) -> None:
    assert (kind.exit_code, kind.retry) == OWN[kind.__name__]


def test_no_failure_looks_like_success_or_like_a_pending_change() -> None:
    assert not {0, 2} & {kind.exit_code for kind in ALL}


def test_what_has_one_exit_status_has_one_advice() -> None:
    """A unit sees the status alone: RestartPreventExitStatus cannot tell two kinds of 10 apart."""
    advice: dict[int, set[bool]] = {}
    for kind in ALL:
        advice.setdefault(kind.exit_code, set()).add(kind.retry)

    assert all(len(said) == 1 for said in advice.values())


def test_the_readme_says_of_each_exit_status_what_the_unit_does() -> None:
    rows = re.findall(r"^\| (\d+) \|[^|]*\| *([^|]*?) *\|", README.read_text(), re.MULTILINE)
    told = {int(code): text.startswith("tries again") for code, text in rows}

    assert told == {kind.exit_code: kind.retry for kind in ALL if kind.exit_code in told}
    assert {kind.exit_code for kind in ALL if raised(kind)} <= set(told)


def raised(kind: type[SoloError]) -> bool:
    """Somewhere in the package, outside of errors.py."""
    modules = [path for path in (ENGINE / "pyinfra_solo").rglob("*.py") if path.name != "errors.py"]
    return any(re.search(rf"\b{kind.__name__}\b", path.read_text()) for path in modules)
