"""Import the roles of an ops repo. Its code runs here for the first time."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pyinfra_solo.errors import ConvergeError, DataError, RoleError
from pyinfra_solo.ops_repo import names
from pyinfra_solo.role import Role
from pyinfra_solo.system.text import explained


def load(root: Path) -> dict[str, Role]:
    """Import every role of the ops repo at `root`: name to declaration.

    Raises ConvergeError when a module cannot be imported (a later commit can fix that, so it is
    retried), DataError when a folder does not declare the role of its name.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return {name: _load_one(name, root) for name in names.roles(root)}


def _load_one(name: str, root: Path) -> Role:
    try:
        module = importlib.import_module(f"roles.{name}")
    except (Exception, SystemExit) as error:
        raise ConvergeError(
            f"roles/{name}/__init__.py cannot be loaded: {explained(error, root)}. Correct it and commit."
        ) from error
    found = getattr(module, name.replace("-", "_"), None)
    if not isinstance(found, Role):
        raise DataError(
            f"roles/{name}/__init__.py declares no role {name!r}. Write `@role()` above `def {name}(data)`."
        )
    return replace(found, name=name)


def with_needs(name: str, roles: Mapping[str, Role]) -> list[Role]:
    """List a role and all that it needs, needed ones first. Raises RoleError: an unknown name, a circle."""
    order: list[Role] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise RoleError(f"Roles need each other in a circle: {' -> '.join((*trail, name))}.")
        if name not in roles:
            raise names.unknown("role", name, sorted(roles))
        for needed in roles[name].needs:
            visit(needed, (*trail, name))
        if roles[name] not in order:
            order.append(roles[name])

    visit(name, ())
    return order
