"""pyinfra that is imported lazily is the same pyinfra: whatever uses its heavy libraries gets the real ones.

Each question is asked in processes of their own, with pyinfra imported lazily and plainly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.apart import run_apart
from tests.support.scripts import imported


def both(question: Callable[..., Any], *words: str | Path, own_mounts: bool = False) -> Any:
    """The answer, which is the same either way."""
    lazily = run_apart(question, *words, own_mounts=own_mounts, lazily=True)
    assert lazily == run_apart(question, *words, own_mounts=own_mounts)
    return lazily


def test_nothing_heavy_and_no_stub_is_left_behind() -> None:
    assert run_apart(imported.left_behind, lazily=True) == [[], []]


def test_what_is_imported_afterwards_is_the_real_one() -> None:
    """Exceptions are of the same class: what pyinfra catches is what paramiko raises."""
    assert both(imported.imported_afterwards)[:7] == [True] * 7


def test_time_outs_of_functions_and_commands_end_as_in_pyinfra() -> None:
    assert both(imported.time_outs) == [
        ["quick", True, True], ["nested", True, True], ["slow", True, False], ["broken", True, False], ["command", True, False],
    ]  # fmt: skip


def test_global_arguments_are_taken_or_refused_as_in_pyinfra() -> None:
    """Of all types, and with the same message."""
    found = both(imported.global_arguments)
    assert found["_sudo text"].startswith("ArgumentTypeError: ")
    assert found["_sudo true"] == "well"
    assert sum(one == "well" for one in found.values()) > 50
    assert sum(one.startswith("ArgumentTypeError") for one in found.values()) > 50


def test_dates_and_distributions_are_read_as_in_pyinfra(tmp_path: Path) -> None:
    root, distribution, name, _ = both(imported.dates_and_distributions, tmp_path, own_mounts=True)
    assert root["login_time"].startswith("2023-11-1")
    assert distribution["name"] == name


def test_pyinfras_own_connector_works_afterwards() -> None:
    assert both(imported.own_connector) == ["well"]


def test_required_versions_are_checked_as_in_pyinfra() -> None:
    both(imported.required_versions)


@pytest.mark.parametrize(
    "name", ["gevent.event.Event", "typeguard.check_type", "paramiko.SSHException", "dateutil.parser.parse"]
)
def test_an_unknown_name_makes_it_import_plainly(name: str) -> None:
    module, _, wanted = name.rpartition(".")
    assert run_apart(imported.with_an_unknown_name, module, wanted) == [False, True, True, []]


def test_an_imported_pyinfra_is_left_alone() -> None:
    assert run_apart(imported.with_pyinfra_imported_already) == ["Host", False, True, []]
