"""Bind roles to their values, and hand them to deploy.py with the callbacks around its changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyinfra import context

from pyinfra_solo.checks import Check
from pyinfra_solo.errors import DataError
from pyinfra_solo.ops_repo import values
from pyinfra_solo.ops_repo.roles import load, with_needs
from pyinfra_solo.role import Role
from pyinfra_solo.system.text import explained


@dataclass(frozen=True)
class BoundRole:
    """A role with its values: calling `converge` declares its operations to pyinfra. root: the ops repo."""

    role: Role
    data: Any
    root: Path = Path()
    given: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Those of its values that group data or a flag sets."""
    converged: list[bool] = field(default_factory=list, repr=False, compare=False)
    """Not empty once `converge` was called."""

    def converge(self) -> None:
        self.converged.append(True)
        with context.host.deploy(name=self.role.name, kwargs=None, data=None):
            self.role.operations(self.data)

    def checks(self) -> list[Check]:
        """List the role's checks. Raises DataError when `healthy` fails or returns something else."""
        place = f"`healthy` of roles/{self.role.name}/__init__.py"
        try:
            found = list(self.role.healthy(self.data))
        except (Exception, SystemExit) as error:
            raise DataError(
                f"{place} failed: {explained(error, self.root)}. It returns a list of checks."
            ) from error
        if wrong := [one for one in found if not isinstance(one, Check)]:
            raise DataError(
                f"{place} returns {wrong[0]!r}. It returns a list of checks, as http(...) makes them."
            )
        hidden = tuple(values.secrets(self.role, self.data))
        return [replace(one, secrets=hidden) for one in found]


@dataclass(frozen=True)
class DeployContext:
    """The input of deploy.py.

    before_change: called once, before the first command that changes anything. before_start: called once,
    before the first command that may start a service. start_unchanged: called with a service's name before
    an operation about it is evaluated, while nothing has been changed. after_operations: called when all
    operations are declared; it may declare more.
    """

    roles: Sequence[BoundRole]
    before_change: Callable[[], None] = lambda: None
    after_operations: Callable[[], None] = lambda: None
    before_start: Callable[[], None] = lambda: None
    start_unchanged: Callable[[str], object] = lambda _service: None
    at_gate: list[int] = field(default_factory=list)
    """The number of operations declared at each call of `gate()` by deploy.py."""

    def require_gate_last(self, operations: int) -> None:
        """Raise DataError unless deploy.py converged each role, and called `gate()` after all operations.

        Without it, operations would change a machine under an open gate.
        """
        left_out = next((one.role.name for one in self.roles if not one.converged), None)
        if left_out:
            raise DataError(
                f"deploy.py does not converge the role {left_out!r}: call converge() of each of roles()."
            )
        if self.at_gate != [operations]:
            raise DataError("deploy.py does not end with gate(). Call it once, after all operations.")


def bind(root: Path, role: str, stage: str, flags: Mapping[str, str]) -> list[BoundRole]:
    """Bind a role and all that it needs to their values.

    flags: key to text. Raises ConvergeError, DataError or RoleError for any mistake in the ops repo.
    """
    roles = load(root)
    values.check_declared(list(roles.values()))
    found = values.layered(root, stage, flags, roles)
    return [
        BoundRole(one, values.bind(one, found), root, values.given(one, found))
        for one in with_needs(role, roles)
    ]
