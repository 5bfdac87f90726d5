"""A role is a declaration that runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pyinfra_solo.errors import DataError
from pyinfra_solo.role import NoData, keys, role


@dataclass(frozen=True)
class Web:
    port: int = 80
    workers: int = 2


def test_declaring_a_role_runs_nothing() -> None:
    @role(needs=["base"])
    def web(data: Any) -> None:
        raise AssertionError(data)

    assert (web.name, web.needs, web.data) == ("web", ("base",), NoData)
    assert list(web.healthy(NoData())) == []
    with pytest.raises(AssertionError):
        web.operations(NoData())


def test_a_misspelt_argument_of_a_declaration_is_an_error() -> None:
    with pytest.raises(TypeError, match="need"):
        role(need=["base"])  # type: ignore[call-arg]


def test_data_that_is_no_dataclass_is_refused() -> None:
    with pytest.raises(DataError, match="A role's data is a frozen dataclass"):
        role(data=dict)


def test_the_keys_of_a_role_are_its_fields() -> None:
    assert keys(role(data=Web)(lambda _data: None)) == ["port", "workers"]
