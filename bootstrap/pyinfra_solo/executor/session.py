"""What the child of station converge does: binds the role, declares the operations of deploy.py, and has them done."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyinfra.api import Host, State
from pyinfra.api.facts import ShortFactBase
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra.facts.files import Directory

from pyinfra_solo import checks, deploy
from pyinfra_solo.errors import ConvergeError, SoloError
from pyinfra_solo.executor.events import EventWriter
from pyinfra_solo.executor.execute import Executor
from pyinfra_solo.executor.failures import capture_log, translate
from pyinfra_solo.executor.host import LocalHost, local_state
from pyinfra_solo.gate import close_gate, read_gate
from pyinfra_solo.native.registry import off_reason
from pyinfra_solo.ops_repo.bind import DeployContext, bind
from pyinfra_solo.ops_repo.values import secrets

if TYPE_CHECKING:  # it is the program's main module, which must not be loaded twice
    from pyinfra_solo.executor.__main__ import Request


class BlankHost(Host):
    """A machine with systemd and nothing else on it: every fact is its own default, or what its
    `blank` makes of the question, where the default does not say it."""

    def get_fact(self, name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        fact = name_or_cls()
        if hasattr(fact, "blank"):
            return fact.blank(**kwargs)
        if name_or_cls is Directory and kwargs.get("path") == "/run/systemd/system":
            return {"mode": 755}
        if isinstance(fact, ShortFactBase):
            return fact.process_data(self.get_fact(fact.fact))
        return fact.default()


def work(request: "Request", tell: EventWriter) -> None:
    """Raises SoloError: ConvergeError when an operation fails, DataError for a template."""
    capture_log()
    tell.watch()
    root = Path(request.root)
    bound = bind(root, request.role, request.stage, request.flags)
    declared = [check for one in bound for check in one.checks()]
    tell.event("declared", roles=[one.role.name for one in bound], checks=checks.to_json(declared))
    tell.hide([text for one in bound for text in secrets(one.role, one.data)])
    state = local_state(
        root, {}, BlankHost if request.mode == "blank" else LocalHost, native=not request.stock
    )
    if not request.stock and (reason := off_reason()):
        tell.event("native off", reason=reason)
    deploy.play(DeployContext(bound, changing=_closing(request, tell)))
    with _context(state) as host:
        _declare_operations(root / "deploy.py", state)
        Executor(request, state, host, tell).all()
    tell.event("done")


def _closing(request: "Request", tell: EventWriter) -> Any:
    def changing() -> None:
        if request.mode != "converge":
            return
        tell.hurry()
        tell.event("changing")
        if (request.close_on_change or not read_gate().open) and close_gate("a run is changing this machine"):
            tell.event("closed")

    return changing


def _declare_operations(path: Path, state: State) -> None:
    """Execute deploy.py as pyinfra does: its operations are declared now and run afterwards."""
    state.current_deploy_filename = state.current_exec_filename = str(path)
    try:
        code = compile(path.read_text(), str(path), "exec")
        exec(code, {"__file__": str(path), "__name__": "__main__"})  # noqa: S102 - the ops repo's own program
    except SoloError:
        raise
    except FileNotFoundError as error:
        raise ConvergeError(f"{error.filename or path} is not in the ops repo. Commit it.") from error
    except Exception as error:
        raise translate(error, "deploy.py") from error


@contextmanager
def _context(state: State) -> Iterator[Host]:
    """pyinfra's own context managers do not reset after an exception; this process ends then."""
    host = next(iter(state.inventory))
    state.current_stage = StateStage.Prepare
    with (
        ctx_state.use(state),
        ctx_inventory.use(state.inventory),
        ctx_config.use(state.config.copy()),
        ctx_host.use(host),
    ):
        yield host
