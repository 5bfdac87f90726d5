"""An operation's check that gives no answer, or one of another type, fails and is not "nothing to do"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import FactProcessError, PyinfraError

from pyinfra_solo.errors import DataError
from pyinfra_solo.executor.host import local_state
from pyinfra_solo.operations import packages, service
from pyinfra_solo.operations.script import Program, ProgramFact
from tests.support.pyinfra_api import within


class Shell(Program):
    """Prints a text instead of running a program."""

    def __init__(self, text: str) -> None:
        module = ModuleType("pyinfra_solo.operations.fake.program")
        module.check = lambda: None  # type: ignore[attr-defined]
        super().__init__(module)
        self.text = text

    def command(self, verb: str, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002
        return StringCommand("printf", f"'{self.text}'")


def fact(text: str) -> type[ProgramFact[list[str]]]:
    return type(
        "Fact", (ProgramFact,), {"program": Shell(text), "default": list, "__module__": "pyinfra_solo.x"}
    )


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("text", ["", "garbage\\n", "null\\n", "{}\\n", "[1]\\n", '"text"\\n'])
def test_no_answer_or_one_of_another_type_fails(tmp_path: Path, text: str, native: bool) -> None:
    with (
        within(local_state(tmp_path, {}, native=native)) as host,
        pytest.raises((PyinfraError, FactProcessError)),
    ):
        host.get_fact(fact(text))


def test_an_answer_of_the_right_type_is_the_value(tmp_path: Path) -> None:
    with within(local_state(tmp_path, {}, native=False)) as host:
        assert host.get_fact(fact('["home"]\\n')) == ["home"]
        assert host.get_fact(fact("[]\\n")) == []


def test_one_name_in_place_of_a_list_of_packages_is_refused() -> None:
    with pytest.raises(DataError, match=r"takes a list\. Write \['redis-server'\]"):
        packages.installed("redis-server")


def test_a_relative_path_as_a_cause_is_refused() -> None:
    with pytest.raises(DataError, match=r"take paths from the root\. Write '/etc/cache'"):
        service.running("cache", name="cache runs", restart_on=["etc/cache"])
