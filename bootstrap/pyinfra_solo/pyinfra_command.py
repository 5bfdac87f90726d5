"""Runs the line under pyinfra's own command, `pyinfra @local deploy.py`: same role, lock, judge, gate.

pyinfra drives the operations; there is no deadline, report or idempotence check.
"""

import atexit
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from pyinfra import context
from pyinfra.api import Host
from pyinfra.operations import python

from pyinfra_solo import checks, fence
from pyinfra_solo.boot import Target, Tree, choose, vouch
from pyinfra_solo.clients.git import head
from pyinfra_solo.errors import SoloError
from pyinfra_solo.executor.evaluate import MistakeError, require_no_mistake
from pyinfra_solo.executor.host import host_data
from pyinfra_solo.executor.solo_connector import take_over
from pyinfra_solo.gate import GatePolicy, close_gate, read_gate
from pyinfra_solo.ops_repo.bind import DeployContext, bind
from pyinfra_solo.protocol import RunOptions
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.run.start import start_run
from pyinfra_solo.stations.converge import engine_here
from pyinfra_solo.stations.judge import Verdict, require_no_other_page, start_waiting_web_servers
from pyinfra_solo.system.text import printable


def begin(data: Any) -> DeployContext:
    """Start a run by hand, and return what deploy.py is to do on this machine.

    data: pyinfra's host data, such as `--data role=web`. On a failure the process ends with the error's
    exit status. A process that does not come to the end of deploy.py ends with 1: pyinfra itself ends with
    0 when a role calls sys.exit(), and when it is interrupted.
    """
    stack, ended = ExitStack(), list[int]()
    atexit.register(_end, stack, ended)
    try:
        settings, run = stack.enter_context(
            start_run(None, "pyinfra @local deploy.py", keep_report=False, bounded=False)
        )
        host = context.ctx_host.get()
        take_over(host, native=settings.converge.native, timeout=settings.limits.operation)
        policy = GatePolicy(at_boot=False, drain=settings.limits.drain)
        # pyinfra tells nobody when an operation fails: the end of the process, under the lock, decides.
        stack.callback(
            lambda: policy.on_failure("a run by hand did not end well", in_doubt=run.gate_in_doubt)
        )
        deploy_context = _context(settings, policy, run, data, ended)
        stack.callback(lambda: _close_if_run_without_gate(policy, host, deploy_context))
    except SoloError as error:
        _exit(error, ended)
    else:
        if _only_shows():
            stack.callback(lambda: ended.extend(deploy_context.at_gate))
        return deploy_context


def _exit(error: SoloError, ended: list[int]) -> NoReturn:
    print(printable(f"pyinfra-solo: {error}"), file=sys.stderr, flush=True)  # noqa: T201
    ended.append(error.exit_code)
    sys.exit(error.exit_code)


def _only_shows() -> bool:
    """Tell whether pyinfra was called to show operations or facts, and to run none.

    Its arguments are parsed once more: click's context is not seen from the greenlet that runs deploy.py.
    """
    from pyinfra_cli.cli import cli  # importing it patches the process: here pyinfra has done so

    asked = cli.make_context("pyinfra", sys.argv[1:], resilient_parsing=True).params
    return bool(
        asked["dry"]
        or asked["debug_facts"]
        or asked["debug_operations"]
        or (asked["json_output"] and not asked["yes"])
    )


def _end(stack: ExitStack, ended: list[int]) -> None:
    """End the run at the end of the process; with exit status 1 when `ended` is empty."""
    stack.close()
    if ended:
        return
    state = "open" if read_gate().open else "closed"
    print(  # noqa: T201
        f"pyinfra-solo: deploy.py did not come to its end, so this machine is not judged. The gate is {state}.",
        file=sys.stderr,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _context(settings: Settings, policy: GatePolicy, run: Run, data: Any, ended: list[int]) -> DeployContext:
    root = Path(context.state.cwd or ".").resolve()
    options = RunOptions(role=data.get("role"), stage=data.get("stage"))
    tree = Tree(root=root, engine=engine_here(Path(sys.executable)))
    target = choose(settings, options, run, lambda _stage: tree)
    flags = dict(context.inventory.get_override_data())
    # pyinfra has parsed them; `values.layered` parses them as their fields' types.
    values = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in flags.items()
        if key not in ("role", "stage")
    }
    bound = bind(root, target.role.name, target.stage.name, values)
    context.inventory.get_data().update(host_data(bound))

    if settings.limits.drain == "always":
        # An operation, because a dry run comes here too.
        python.call(
            name="the gate is closed during a run",
            function=close_gate, reason="a run by hand has begun",
        )  # fmt: skip

    def before_change() -> None:
        run.gate_in_doubt = True
        policy.before_change()

    def after_operations() -> None:
        try:
            require_no_mistake(context.state, context.host, list(context.host.op_hash_order))
        except MistakeError as mistake:
            _exit(mistake.reason, ended)
        python.call(
            name="the gate is open, because every check passes",
            function=_judge_and_open, target=target, deploy_context=deploy_context, run=run, ended=ended,
        )  # fmt: skip

    deploy_context = DeployContext(
        bound, before_change, after_operations, before_start=fence.release,
        start_unchanged=lambda service: fence.start_waiting(run.say, [service]),
    )  # fmt: skip
    return deploy_context


def _close_if_run_without_gate(policy: GatePolicy, host: Host, deploy_context: DeployContext) -> None:
    """Close the gate when operations were run, although deploy.py never called gate()."""
    done = host.state.is_executing and bool(host.state.ops[host])
    policy.on_failure("deploy.py did not call gate()", in_doubt=done and not deploy_context.at_gate)


def _judge_and_open(target: Target, deploy_context: DeployContext, run: Run, ended: list[int]) -> None:
    """Run as the last operation: pyinfra reaches it only when every other one has succeeded."""
    run.gate_in_doubt = True
    deploy_context.require_gate_last(len(context.state.ops[context.host]))
    declared = [check for one in deploy_context.roles for check in one.checks()]
    declared_json = checks.to_json(declared)
    start_waiting_web_servers(declared_json, run.say)
    Verdict(checks.perform_all(declared, run.deadline)).require_ready()
    require_no_other_page(declared_json)
    vouch(target, head(target.tree.root), declared_json, sys.executable, run)
    ended.append(0)
