"""What `deploy.py` says: the roles of this machine, and the gate last.

The same deploy.py is run by three: the engine (which has chosen the role and keeps the gate), an
operator's `pyinfra @local deploy.py` (then the choice and the gate are made here, by the same
stations), and a push over SSH (the role is the host's data; the gate of a machine is its own affair).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra import context

from pyinfra_solo import data as role_data
from pyinfra_solo import role as declared
from pyinfra_solo.checks import Check
from pyinfra_solo.errors import RoleError


@dataclass(frozen=True)
class Bound:
    """A role with its values: calling `converge` declares its operations to pyinfra."""

    role: declared.Role
    data: Any

    def converge(self) -> None:
        with context.host.deploy(name=self.role.name, kwargs=None, data=None):
            self.role.operations(self.data)

    def checks(self) -> list[Check]:
        return list(self.role.healthy(self.data))


@dataclass(frozen=True)
class Part:
    """What the process that runs deploy.py has been told.

    changing: called once, before the first command that changes anything. last: called when all
    operations are declared.
    """

    roles: Sequence[Bound]
    changing: Callable[[], None] = lambda: None
    last: Callable[[], None] = lambda: None


_part: Part | None = None


def bind(root: Path, role: str, stage: str, flags: Mapping[str, str]) -> list[Bound]:
    """The role and all that it needs, with their values. Raises SoloErrors of every kind of mistake."""
    all_roles = declared.load(root)
    role_data.check_unique(list(all_roles.values()))
    values = role_data.layered(root, stage, flags, all_roles)
    return [Bound(one, role_data.bind(one, values)) for one in declared.with_needs(role, all_roles)]


def play(part: Part) -> None:
    """From here on `roles()` and `gate()` answer for the engine."""
    global _part  # noqa: PLW0603 - pyinfra executes deploy.py with no argument to hand it over
    _part = part


def roles() -> list[Bound]:
    """The roles of the machine that is being converged, needed ones first."""
    if _part is None:
        play(_by_hand())
    assert _part is not None  # noqa: S101 - for mypy
    return list(_part.roles)


def gate() -> None:
    """The last line of deploy.py: the gate closes before the first change, and opens after the last."""
    assert _part is not None, "Call roles() before gate()."  # noqa: S101
    announce_changes(context.state.ops[context.host].values(), _part.changing)
    _part.last()


def announce_changes(operations: Any, changing: Callable[[], None]) -> None:
    """An operation that yields a command changes something: say so, once, before that command runs.

    pyinfra has no such hook; the operation's own generator is where every driver takes commands from.
    """
    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            changing()

    for operation in operations:
        operation.command_generator = _told(operation.command_generator, tell)


def _told(generator: Callable[[], Iterator[Any]], tell: Callable[[], None]) -> Callable[[], Iterator[Any]]:
    def commands() -> Iterator[Any]:
        for command in generator():
            tell()
            yield command

    return commands


def _by_hand() -> Part:
    host = context.host
    if host.name == "@local":
        from pyinfra_solo import by_hand

        return by_hand.begin(host.data)
    root = Path(context.state.cwd or ".")
    role, stage = host.data.get("role"), host.data.get("stage") or _stage_group(root, host.groups)
    if not role or not stage:
        raise RoleError(
            f"{host.name} has no role or no stage. Give it host data `role`, and put it into a stage's inventory."
        )
    return Part(bind(root, role, stage, {}))


def _stage_group(root: Path, groups: Sequence[str]) -> str | None:
    """A stage's inventory file makes a group of its name (pyinfra, Inventory & Data)."""
    return next((group for group in groups if group in role_data.stages(root)), None)
