"""A declaration of a role that cannot be meant is refused, with its name and place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from pyinfra_solo.checks import tcp
from pyinfra_solo.errors import DataError
from pyinfra_solo.ops_repo.bind import BoundRole
from pyinfra_solo.role import NoData, role


@dataclass
class Loose:
    port: int = 80


@dataclass(frozen=True)
class Untyped:
    port: int = 80
    workers = 2


@dataclass(frozen=True)
class Whole:
    port: int = 80
    kinds: ClassVar[int] = 3
    _own = 4

    @property
    def address(self) -> str:
        return f":{self.port}"

    def more(self) -> None: ...


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (Loose, r"test_declarations\.Loose is not frozen\. Write @dataclass\(frozen=True\)"),
        (Untyped, r"test_declarations\.Untyped\.workers has no type\. Write `workers: int = \.\.\.`"),
    ],
)
def test_data_that_is_not_frozen_or_has_no_type_is_refused(data: type[Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        role(data=data)


def test_methods_and_class_variables_of_data_are_no_values() -> None:
    role(data=Whole)


def test_one_name_in_place_of_a_list_of_needs_is_refused() -> None:
    with pytest.raises(DataError, match=r"needs are a list\. Write needs=\['base'\]"):
        role(needs="base")


def bound(healthy: Callable[[Any], Any]) -> BoundRole:
    @role(healthy=healthy)
    def web(data: Any) -> None: ...

    return BoundRole(web, NoData())


@pytest.mark.parametrize(
    ("healthy", "why"),
    [
        (lambda _data: None, "failed: TypeError: 'NoneType' object is not iterable"),
        (lambda _data: 1 / 0, "failed: ZeroDivisionError: division by zero"),
        (lambda _data: ["http://x"], "returns 'http://x'"),
        (lambda _data: tcp(80), "failed: TypeError"),
    ],
)
def test_healthy_that_gives_no_checks_is_named(healthy: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(
        DataError, match=f"`healthy` of roles/web/__init__.py {why}.*It returns a list of checks"
    ):
        bound(healthy).checks()


def test_healthy_that_gives_checks_is_taken() -> None:
    assert bound(lambda _data: (tcp(80),)).checks() == [tcp(80)]
