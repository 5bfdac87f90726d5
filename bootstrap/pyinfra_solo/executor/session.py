"""The executor's session: load the role, declare the operations of deploy.py, and execute them."""

import sys
from pathlib import Path
from typing import Any

from pyinfra.api import Host, State
from pyinfra.api.facts import ShortFactBase
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra.facts.files import Directory

from pyinfra_solo import checks, deploy, fence, protocol
from pyinfra_solo.errors import ConvergeError, SoloError
from pyinfra_solo.executor import include
from pyinfra_solo.executor.events import EventWriter
from pyinfra_solo.executor.execute import Executor
from pyinfra_solo.executor.failures import capture_log, translate
from pyinfra_solo.executor.host import LocalHost, host_data, local_state
from pyinfra_solo.gate import GatePolicy
from pyinfra_solo.native.registry import off_reason
from pyinfra_solo.ops_repo.bind import DeployContext, bind
from pyinfra_solo.ops_repo.values import secrets
from pyinfra_solo.protocol import Request


class BlankHost(Host):
    """A machine with systemd and nothing else on it, for a plan without a machine.

    Each fact is its own default, or what its `blank` makes of the arguments.
    """

    def get_fact(self, name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        fact = name_or_cls()
        if hasattr(fact, "blank"):
            return fact.blank(**kwargs)
        if name_or_cls is Directory and kwargs.get("path") == "/run/systemd/system":
            return {"mode": 755}
        if isinstance(fact, ShortFactBase):
            return fact.process_data(self.get_fact(fact.fact))
        return fact.default()


def run(request: Request, events: EventWriter) -> None:
    """Converge or plan. Raises SoloError: ConvergeError when an operation fails, DataError for a template."""
    capture_log()
    events.flush_regularly()
    include.install()
    root = Path(request.root)
    bound = bind(root, request.role, request.stage, request.options.data)
    events.hide([text for one in bound for text in secrets(one.role, one.data)])
    declared = [check for one in bound for check in one.checks()]
    events.write(protocol.Declared(roles=[one.role.name for one in bound], checks=checks.to_json(declared)))
    host_class = BlankHost if request.mode == "blank" else LocalHost
    state = local_state(root, host_data(bound), host_class, native=request.options.native)
    policy = GatePolicy(at_boot=request.options.at_boot, drain=request.drain)

    def before_change() -> None:
        if request.mode == "converge":
            executor.evaluate_all()
            events.write(protocol.Changing())
            if policy.before_change():
                events.write(protocol.GateClosed())

    def before_start() -> None:
        if request.mode == "converge":
            fence.release()

    def start_unchanged(service: str) -> None:
        if request.mode == "converge":
            fence.start_waiting(lambda line: print(line, file=sys.stderr), [service])  # noqa: T201

    if request.options.native and (reason := off_reason()):
        events.write(protocol.NativeOff(reason=reason))
    host = next(iter(state.inventory))
    state.current_stage = StateStage.Prepare
    # pyinfra's own managers do not reset its context after an exception; this process ends then.
    with (
        ctx_state.use(state), ctx_inventory.use(state.inventory),
        ctx_config.use(state.config.copy()), ctx_host.use(host),
    ):  # fmt: skip
        deploy_context = DeployContext(
            bound, before_change, before_start=before_start, start_unchanged=start_unchanged
        )
        deploy.use(deploy_context)
        _declare_operations(root / "deploy.py", state)
        deploy_context.require_gate_last(len(state.ops[host]))
        executor = Executor(request, state, host, events)
        executor.run_all()
    events.write(protocol.Done())


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
    except (Exception, SystemExit) as error:
        raise translate(error, "deploy.py", path.parent) from error
