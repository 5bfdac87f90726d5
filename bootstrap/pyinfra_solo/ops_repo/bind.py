"""What deploy.py is told: the roles with their values, and what to do before and after the changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra import context

from pyinfra_solo import role as declared
from pyinfra_solo.checks import Check
from pyinfra_solo.ops_repo import values as role_data


@dataclass(frozen=True)
class BoundRole:
    """A role with its values: calling `converge` declares its operations to pyinfra."""

    role: declared.Role
    data: Any

    def converge(self) -> None:
        with context.host.deploy(name=self.role.name, kwargs=None, data=None):
            self.role.operations(self.data)

    def checks(self) -> list[Check]:
        return list(self.role.healthy(self.data))


@dataclass(frozen=True)
class DeployContext:
    """What the process that runs deploy.py has been told.

    changing: called once, before the first command that changes anything. last: called when all
    operations are declared.
    """

    roles: Sequence[BoundRole]
    before_change: Callable[[], None] = lambda: None
    after_operations: Callable[[], None] = lambda: None


def bind(root: Path, role: str, stage: str, flags: Mapping[str, str]) -> list[BoundRole]:
    """The role and all that it needs, with their values. Raises SoloErrors of every kind of mistake."""
    all_roles = declared.load(root)
    role_data.check_declared(list(all_roles.values()))
    values = role_data.layered(root, stage, flags, all_roles)
    return [BoundRole(one, role_data.bind(one, values)) for one in declared.with_needs(role, all_roles)]
