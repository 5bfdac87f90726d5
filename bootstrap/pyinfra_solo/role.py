"""Declare a role: a function of operations, with the data, needs and health checks that belong to it.

    @role(data=Web, needs=["base"], healthy=healthy)
    def web(data: Web) -> None:
        apt.packages(name="nginx is installed", packages=["nginx-light"])

The folder `roles/web/` holds the declaration in `__init__.py`, and its templates and files beside it.
A declaration changes nothing; pyinfra runs it. Ops repos import this module.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from inspect import get_annotations
from typing import Annotated, Any

import msgspec

from pyinfra_solo.checks import Check
from pyinfra_solo.errors import DataError

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""The type of a value that is removed from events, output and diffs."""


@dataclass(frozen=True)
class NoData:
    """The data of a role without values of its own."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role as declared.

    name: its folder's name. data: a frozen dataclass whose fields are the role's values, each with
    a type and, nearly always, a default. needs: roles that are converged before it. healthy: from
    its data, the checks that the judge performs. operations: the function that pyinfra runs.
    """

    name: str
    data: type[Any]
    needs: Sequence[str]
    healthy: Callable[[Any], Sequence[Check]]
    operations: Callable[[Any], None]


def role(
    *,
    data: type[Any] = NoData,
    needs: Sequence[str] = (),
    healthy: Callable[[Any], Sequence[Check]] = lambda _data: (),
) -> Callable[[Callable[[Any], None]], Role]:
    """Declare the decorated function as the role of its name. Raises DataError."""
    _check_data(data)
    if isinstance(needs, str):
        raise DataError(f"A role's needs are a list. Write needs=[{needs!r}].")

    def declare(operations: Callable[[Any], None]) -> Role:
        return Role(
            name=operations.__name__, data=data, needs=tuple(needs), healthy=healthy, operations=operations
        )

    return declare


def _check_data(data: type[Any]) -> None:
    """Raise DataError for data that is no frozen dataclass, or has a value without a type."""
    if not is_dataclass(data):
        raise DataError(f"A role's data is a frozen dataclass, not {data!r}.")
    place = f"{data.__module__}.{data.__qualname__}"
    if not data.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise DataError(f"{place} is not frozen. Write @dataclass(frozen=True) above it.")
    for one in data.__mro__:
        for name, value in vars(one).items():
            if not (name.startswith("_") or name in get_annotations(one) or _is_code(value)):
                raise DataError(
                    f"{one.__module__}.{one.__qualname__}.{name} has no type. Write `{name}: {type(value).__name__} = ...`."
                )


def _is_code(value: Any) -> bool:
    """Find methods, properties and nested classes, which are no values of a role."""
    return callable(value) or hasattr(value, "__get__")


def keys(role: Role) -> list[str]:
    """List the names of the role's values."""
    return [field.name for field in fields(role.data)]
