"""Give an ops repo's `deploy.py` the roles of this machine, and the gate as its last line.

Not to be confused with the ops repo's own file deploy.py, nor with pyinfra's decorator `deploy`. Three
run the same deploy.py: the executor, which has chosen the role and keeps the gate; an operator's
`pyinfra @local deploy.py`, for which pyinfra_command chooses and keeps it; and a push over SSH, where the
role is the host's data, and the gate is left to the machine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra import context
from pyinfra.api import Host

from pyinfra_solo.errors import RoleError
from pyinfra_solo.ops_repo.bind import BoundRole, DeployContext, bind
from pyinfra_solo.ops_repo.names import stages

_START_NOTHING = (
    "pyinfra.operations.apt",
    "pyinfra.operations.dnf",
    "pyinfra.operations.files",
    "pyinfra.operations.yum",
    "pyinfra_solo.operations.accounts",
    "pyinfra_solo.operations.packages",
    "pyinfra_solo.operations.release",
    "pyinfra_solo.operations.validated",
)
"""Modules whose operations start no service for the role. A package's own script may start one with the image's
configuration: it must not."""

_contexts: WeakKeyDictionary[Host, DeployContext] = WeakKeyDictionary()
"""By host: a push runs deploy.py once for each."""


def use(deploy_context: DeployContext) -> None:
    """Let `roles()` and `gate()` answer for this context on the current host."""
    _contexts[context.ctx_host.get()] = deploy_context


def roles() -> list[BoundRole]:
    """Return the roles of the machine that is converged, needed ones first."""
    if context.ctx_host.get() not in _contexts:
        use(_new_context())
    return list(_contexts[context.ctx_host.get()].roles)


def gate() -> None:
    """Close the gate before the first change, and open it after the last: the last line of deploy.py."""
    roles()
    deploy_context = _contexts[context.ctx_host.get()]
    # pyinfra has no hook before a change. Every driver takes commands from the operation's own generator.
    hooks = _Hooks(deploy_context)
    for operation in context.state.ops[context.host].values():
        operation.command_generator = hooks.around(operation.command_generator)
    deploy_context.after_operations()
    deploy_context.at_gate.append(len(context.state.ops[context.host]))


class _Hooks:
    """Calls the functions of a DeployContext, each at most once, around the operations of its host."""

    def __init__(self, deploy_context: DeployContext) -> None:
        self._before_change = cache(deploy_context.before_change)
        self._before_start = cache(deploy_context.before_start)
        self._start_unchanged = cache(deploy_context.start_unchanged)
        self._has_changed = False

    def around(self, generator: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
        """Return the operation's generator of commands, with the calls before its evaluation and its commands."""
        starts_nothing = module_of(generator) in _START_NOTHING
        service = "" if starts_nothing else _service_of(generator)

        def commands() -> Iterator[Any]:
            if service and not self._has_changed:
                self._start_unchanged(service)
            for command in generator():
                self._has_changed = True
                self._before_change()
                if not starts_nothing:
                    self._before_start()
                yield command

        commands.__wrapped__ = generator  # type: ignore[attr-defined]
        return commands


def _cell(generator: Callable[..., Any], name: str) -> Any:
    """Return what pyinfra's wrapper of an operation's generator has in its closure; None when unknown."""
    generator = getattr(generator, "__wrapped__", generator)
    cells = dict(zip(generator.__code__.co_freevars, generator.__closure__ or (), strict=False))
    return cells[name].cell_contents if name in cells else None


def _service_of(generator: Callable[..., Any]) -> str:
    """Return the service that an operation of ours, or of pyinfra's modules for services, is about, or ""."""
    given = _cell(generator, "kwargs") or {}
    ours = given.get("arguments")
    first = next(iter(_cell(generator, "args") or ()), "")
    name = ours.get("name") if isinstance(ours, Mapping) else given.get("service", first)
    return str(name).removesuffix(".service")


def module_of(generator: Callable[..., Any]) -> str:
    """Return the module of the operation's function; "" when unknown."""
    return str(getattr(_cell(generator, "func"), "__module__", ""))


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
