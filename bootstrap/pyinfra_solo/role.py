"""What a role is: a declaration that touches nothing until pyinfra runs it.

    @role(data=Web, needs=["base"], healthy=healthy)
    def web(data: Web) -> None:
        apt.packages(name="nginx is installed", packages=["nginx-light"])

The folder `roles/web/` holds the declaration in `__init__.py`, and its templates and files beside it.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pyinfra_solo.checks import Check
from pyinfra_solo.errors import ConvergeError, DataError, RoleError
from pyinfra_solo.system.text import NAME, in_words


@dataclass(frozen=True)
class NoData:
    """For a role without values of its own."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role as declared.

    name: its folder's name. data: a frozen dataclass whose fields are the role's values, each with
    a type and, nearly always, a default. needs: roles that are converged before it. healthy: from
    its data, the checks that the judge makes. operations: the function that pyinfra runs.
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
    """Declare the decorated function as the role of its name."""
    if not is_dataclass(data):
        raise DataError(f"A role's data is a frozen dataclass, not {data!r}.")

    def declare(operations: Callable[[Any], None]) -> Role:
        return Role(
            name=operations.__name__,
            data=data,
            needs=tuple(needs),
            healthy=healthy,
            operations=operations,
        )

    return declare


def checked_name(kind: str, name: str, source: str) -> str:
    """`name` when it is one, for names that come from outside.

    Raises RoleError: a tag may hold anything, and names become paths.
    """
    if NAME.fullmatch(name):
        return name
    shown = name if len(name) <= 40 else name[:40] + "…"
    raise RoleError(
        f"The {kind} {shown!a} from {source} is not a name: use a-z, then a-z, 0-9, _ or -, 63 at most."
    )


def names(root: Path) -> list[str]:
    """The roles of the repository at `root`, by folder, without importing any."""
    return sorted(path.parent.name for path in root.glob("roles/*/__init__.py"))


def unknown(kind: str, name: str, known: Sequence[str]) -> RoleError:
    """There is no such role or stage: says which there are, and the nearest."""
    near = get_close_matches(name, known, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return RoleError(
        f"There is no {kind} {name!r}.{guess} {kind.capitalize()}s here: {', '.join(known) or 'none'}."
    )


def load(root: Path) -> dict[str, Role]:
    """Import every role of the repository at `root`: name to declaration.

    Raises ConvergeError when a module cannot be imported (a later commit can mend that, so it is
    retried), DataError when a folder does not declare the role of its name.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return {name: _load_one(name) for name in names(root)}


def _load_one(name: str) -> Role:
    try:
        module = importlib.import_module(f"roles.{name}")
    except (Exception, SystemExit) as error:
        raise ConvergeError(
            f"roles/{name}/__init__.py cannot be loaded: {in_words(error)}. Correct it and commit."
        ) from error
    found = getattr(module, name.replace("-", "_"), None)
    if not isinstance(found, Role):
        raise DataError(
            f"roles/{name}/__init__.py declares no role {name!r}. Write `@role()` above `def {name}(data)`."
        )
    return replace(found, name=name)


def with_needs(name: str, roles: dict[str, Role]) -> list[Role]:
    """The role and all it needs, needed ones first. Raises RoleError on an unknown name or a circle."""
    order: list[Role] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise RoleError(f"Roles need each other in a circle: {' -> '.join((*trail, name))}.")
        if name not in roles:
            raise unknown("role", name, sorted(roles))
        for needed in roles[name].needs:
            visit(needed, (*trail, name))
        if roles[name] not in order:
            order.append(roles[name])

    visit(name, ())
    return order


def keys(role: Role) -> list[str]:
    """The names of the role's values."""
    return [field.name for field in fields(role.data)]
