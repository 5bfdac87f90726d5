"""`pyinfra @local deploy.py`: the same choice of role, the same judge, and the same gate-last rule, when
it is pyinfra's command that drives and not our line."""

import atexit
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from pyinfra import context
from pyinfra.operations import python

from pyinfra_solo import checks
from pyinfra_solo.boot import RunOptions, identify_machine
from pyinfra_solo.clients.git import head
from pyinfra_solo.errors import JudgedError, SoloError
from pyinfra_solo.executor.solo_connector import take_over
from pyinfra_solo.gate import Statement, boot_id, close_gate, open_gate, read_gate
from pyinfra_solo.ops_repo.bind import BoundRole, DeployContext, bind
from pyinfra_solo.run import start as runs
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.stations.identify import Instance
from pyinfra_solo.stations.judge import judge_here
from pyinfra_solo.stations.resolve import Choice, resolve, stage_of


class _Work:
    """How far the operations have come: pyinfra tells nobody when one of them fails."""

    def __init__(self) -> None:
        self.start_run = self.done = False

    def close_if_half_done(self) -> None:
        """At the process's end, with the run lock still held."""
        if self.start_run and not self.done:
            close_gate("a run by hand changed this machine and did not end well")


def begin(data: Any) -> DeployContext:
    """What deploy.py is to do on this machine. data: pyinfra's host data: `--data role=web`.

    Ends the process with the error's exit status when there is no answer.
    """
    stack = ExitStack()
    atexit.register(stack.close)
    try:
        settings, run = stack.enter_context(
            runs.start_run(None, "pyinfra @local deploy.py", keep_report=False, bounded=False)
        )
        take_over(context.ctx_host.get(), native=settings.converge.native, timeout=settings.limits.operation)
        work = _Work()
        stack.callback(work.close_if_half_done)
        return _part(settings, run, dict(context.inventory.get_override_data()), data, work)
    except SoloError as error:
        _end(error)


def _end(error: SoloError) -> NoReturn:
    print(f"pyinfra-solo: {error}", file=sys.stderr, flush=True)  # noqa: T201
    sys.exit(error.exit_code)


def _part(settings: Settings, run: Run, flags: dict[str, Any], data: Any, work: _Work) -> DeployContext:
    root = Path(context.state.cwd or ".").resolve()
    options = RunOptions(role=data.get("role"), stage=data.get("stage"))
    with run.station("identify"):
        instance = identify_machine(settings, options, run)
        read_gate(instance.id)
        stage = stage_of(options.stage, settings.machine.stage, instance)
    with run.station("resolve"):
        choice = resolve(root, options.role, settings.machine.role, stage, instance)
        run.say(f"{choice.role}, {choice.stage}")
    values = {key: _text(value) for key, value in flags.items() if key not in ("role", "stage")}
    bound = bind(root, choice.role.name, choice.stage.name, values)

    if settings.limits.drain == "always":
        # An operation, because a dry run comes here too.
        python.call(
            name="the gate is closed while a run is at work",
            function=close_gate, reason="a run by hand has begun",
        )  # fmt: skip

    def changing() -> None:
        work.start_run = True
        if settings.limits.drain != "never" or not read_gate().open:
            close_gate("a run by hand is changing this machine")

    def last() -> None:
        python.call(
            name="the gate is open, because all is right",
            function=_judge_and_open,
            choice=choice, instance=instance, bound=bound, root=root, run=run, work=work,
        )  # fmt: skip

    return DeployContext(bound, changing, last)


def _judge_and_open(
    choice: Choice, instance: Instance, bound: list[BoundRole], root: Path, run: Run, work: _Work
) -> None:
    """The last operation: pyinfra comes to it only when every other one has succeeded."""
    declared = [check for one in bound for check in one.checks()]
    try:
        judge_here(declared, run.deadline).require_ready()
    except JudgedError as problem:
        close_gate(str(problem))
        raise
    os.sync()
    open_gate(
        Statement(
            role=choice.role.name, stage=choice.stage.name, sha=head(root), boot_id=boot_id(), instance_id=instance.id,
            checks=checks.to_json(declared), python=sys.executable, run=run.id, at=time.time(),
        )
    )  # fmt: skip
    work.done = True


def _text(value: Any) -> str:
    """pyinfra has read the flag already; `data.layered` reads it as its field's type."""
    return value if isinstance(value, str) else json.dumps(value)
