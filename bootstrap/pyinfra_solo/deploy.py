"""What `deploy.py` says: the roles of this machine, and the gate last.

The same deploy.py is run by three: the engine (which has chosen the role and keeps the gate), an
operator's `pyinfra @local deploy.py` (then the choice and the gate are made here, by the same
stations), and a push over SSH (the role is the host's data; the gate of a machine is its own affair).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pyinfra import context

from pyinfra_solo.errors import RoleError
from pyinfra_solo.ops_repo.bind import BoundRole, DeployContext, bind
from pyinfra_solo.ops_repo.names import stages

_part: DeployContext | None = None


def play(part: DeployContext) -> None:
    """From here on `roles()` and `gate()` answer for the engine."""
    global _part  # noqa: PLW0603 - pyinfra executes deploy.py with no argument to hand it over
    _part = part


def roles() -> list[BoundRole]:
    """The roles of the machine that is being converged, needed ones first."""
    if _part is None:
        play(_by_hand())
    assert _part is not None  # noqa: S101 - for mypy
    return list(_part.roles)


def gate() -> None:
    """The last line of deploy.py: the gate closes before the first change, and opens after the last."""
    assert _part is not None, "Call roles() before gate()."  # noqa: S101
    announce_changes(context.state.ops[context.host].values(), _part.before_change)
    _part.after_operations()


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

    commands.__wrapped__ = generator  # type: ignore[attr-defined]
    return commands


def _by_hand() -> DeployContext:
    host = context.host
    if host.name in ("@local", "@solo"):
        from pyinfra_solo import pyinfra_command as by_hand

        return by_hand.begin(host.data)
    root = Path(context.state.cwd or ".")
    role, stage = host.data.get("role"), host.data.get("stage") or _stage_group(root, host.groups)
    if not role or not stage:
        raise RoleError(
            f"{host.name} has no role or no stage. Give it host data `role`, and put it into a stage's inventory."
        )
    return DeployContext(bind(root, role, stage, {}))


def _stage_group(root: Path, groups: Sequence[str]) -> str | None:
    """A stage's inventory file makes a group of its name (pyinfra, Inventory & Data)."""
    return next((group for group in groups if group in stages(root)), None)
