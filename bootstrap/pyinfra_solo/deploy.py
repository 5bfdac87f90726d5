"""What an ops repo's `deploy.py` imports: the roles of this machine, and the gate last.

Not to be confused with the ops repo's own file deploy.py, nor with pyinfra's decorator `deploy`. Three
run the same deploy.py: the executor, which has chosen the role and keeps the gate; an operator's
`pyinfra @local deploy.py`, for which pyinfra_command chooses and keeps it; and a push over SSH, where the
role is the host's data, and the gate is left to the machine.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pyinfra import context

from pyinfra_solo.errors import RoleError
from pyinfra_solo.ops_repo.bind import BoundRole, DeployContext, bind
from pyinfra_solo.ops_repo.names import stages

_context: DeployContext | None = None


def use(deploy_context: DeployContext) -> None:
    """Let `roles()` and `gate()` answer for this context from here on."""
    global _context  # noqa: PLW0603 - pyinfra executes deploy.py with no argument to hand it over
    _context = deploy_context


def roles() -> list[BoundRole]:
    """Return the roles of the machine that is converged, needed ones first."""
    if _context is None:
        use(_new_context())
    assert _context is not None  # noqa: S101 - for mypy
    return list(_context.roles)


def gate() -> None:
    """Close the gate before the first change, and open it after the last: the last line of deploy.py."""
    assert _context is not None, "Call roles() before gate()."  # noqa: S101
    # pyinfra has no hook before a change. Every driver takes commands from the operation's own generator.
    before_first = cache(_context.before_change)
    for operation in context.state.ops[context.host].values():
        operation.command_generator = _calling(operation.command_generator, before_first)
    _context.after_operations()


def _calling(generator: Callable[[], Iterator[Any]], call: Callable[[], None]) -> Callable[[], Iterator[Any]]:
    def commands() -> Iterator[Any]:
        for command in generator():
            call()
            yield command

    commands.__wrapped__ = generator  # type: ignore[attr-defined]
    return commands


def _new_context() -> DeployContext:
    """Return the context of a run that our line has not started: by hand, or a push over SSH."""
    host = context.host
    if host.name in ("@local", "@solo"):
        from pyinfra_solo import pyinfra_command

        return pyinfra_command.begin(host.data)
    root = Path(context.state.cwd or ".")
    role, stage = host.data.get("role"), host.data.get("stage") or _stage_group(root, host.groups)
    if not role or not stage:
        raise RoleError(
            f"{host.name} has no role or no stage. Give it host data `role`, and put it into a stage's inventory."
        )
    return DeployContext(bind(root, role, stage, {}))


def _stage_group(root: Path, groups: Sequence[str]) -> str | None:
    """Return the stage whose inventory the host is in: its file makes a group of its name (pyinfra docs)."""
    return next((group for group in groups if group in stages(root)), None)
