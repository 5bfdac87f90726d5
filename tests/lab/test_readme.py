"""The README's two commands, run as written in a clean Debian 12: minbase, make, nothing by hand.

`make demo` is run whole. `make test` inside `make test` would never end, so the lab's part of it is
one test there, by the Makefile's variables UNIT and LAB; linters are run whole. All of it, in a
clean Debian and without this host's cache: `python -m tests.lab.clean --no-cache make test`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.clean import Clean, place

pytestmark = pytest.mark.lab

README = Path(__file__).parents[2] / "README.md"
A_PART = (
    "UNIT='tests/test_gate.py tests/stations/test_fetch.py tests/cli/test_init.py' "
    "LAB='tests/lab/test_lab_itself.py -k a_systemd_machine_boots'"
)
LONG = 1800.0
"""Seconds in which either must have ended, packages and all: a bound, not a measure."""


@pytest.fixture
def clean() -> Iterator[Clean]:
    """A Debian in which nothing was ever run. The lab's roots come from this host's cache."""
    with Clean(place()) as made:
        yield made


def commands() -> list[str]:
    """Every `make` command that stands in a fence of README.md."""
    fences = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return [line for fence in fences for line in fence.splitlines() if line.startswith("make ")]


def test_the_readme_has_two_commands() -> None:
    assert commands() == ["make demo", "make test"]


def test_make_demo_works_on_a_bare_debian(clean: Clean) -> None:
    demo, _ = commands()
    said = clean.run(demo, LONG).stdout
    told = said.partition("What was just shown")[2].strip().splitlines()
    assert told
    assert all(line.strip().startswith("✓") for line in told)
    assert "\x1b" not in said


def test_make_test_works_on_a_bare_debian(clean: Clean) -> None:
    _, test = commands()
    said = clean.run(f"{test} {A_PART}", LONG).stdout
    assert re.search(r"^=+ 3 passed", said, re.MULTILINE), said[-3000:]
