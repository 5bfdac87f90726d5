"""The line: close gate -> identify -> fetch -> prepare -> resolve -> converge -> judge -> open gate.

A boot is one straight line, and `boot` is that line. The engine baked into the image fetches,
verifies and prepares; the one that the checkout names converges and judges.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyinfra_solo import paths
from pyinfra_solo.errors import PausedError
from pyinfra_solo.gate import Statement, boot_id, close_gate, open_gate, read_gate
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.stations.converge import Changes, Engine, converge, engine_of
from pyinfra_solo.stations.fetch import Checkout, fetch
from pyinfra_solo.stations.identify import Instance, identify
from pyinfra_solo.stations.judge import judge
from pyinfra_solo.stations.last_good import last_good, remember_good
from pyinfra_solo.stations.prepare import Runtime, prepare
from pyinfra_solo.stations.resolve import Choice, resolve, stage_of


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a command line asks for. at_boot: nothing that was true before this boot counts. stock: nothing
    native, every fact and command by a shell."""

    at_boot: bool = False
    role: str | None = None
    stage: str | None = None
    ref: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    gate: bool = True
    stock: bool = False


def boot(settings: Settings, options: RunOptions, run: Run) -> Changes:
    """Converge this machine, and open its gate when that is right. Raises SoloError; then the gate is
    closed, unless the machine was in service and nothing on it has been changed."""
    try:
        with run.station("close gate"):
            drain = _close(settings, options)
        with run.station("identify"):
            instance = identify_machine(settings, options, run)
            read_gate(instance.id)
            stage = stage_of(options.stage, settings.machine.stage, instance)
        with run.station("fetch"):
            checkout = fetch(settings.ops, stage.name, options.ref, paths.STATE, run, good=last_good())
            run.report.sha, run.report.source = checkout.sha, checkout.source
        with run.station("prepare"):
            engine = engine_of(checkout.root, prepare_runtime(settings, checkout, run).python)
        with run.station("resolve"):
            choice = resolve(checkout.root, options.role, settings.machine.role, stage, instance)
            run.report.role, run.report.stage = choice.role.name, choice.stage.name
            run.say(f"{choice.role}, {choice.stage}")
        with run.station("converge"):
            changes = converge(
                checkout.root, engine, choice, options.flags, run,
                operation_seconds=settings.limits.operation, close_on_change=drain,
                stock=options.stock or not settings.converge.native,
            )  # fmt: skip
            run.say(f"{changes.changed} of {len(changes.operations)} operations changed something")
        with run.station("judge"):
            verdict = judge(changes.checks, engine.python, dict(engine.environment), run.deadline)
            run.report.findings = list(verdict.findings)
            verdict.require_ready()
            if settings.converge.idempotence == "refuse":
                changes.require_idempotent()
            run.say(f"{len(verdict.findings)} checks passed")
        if options.gate:
            with run.station("open gate"):
                _open(choice, checkout, instance, changes, engine, run)
        # join: the balancers and the launch hook have their place here.
    except PausedError:
        raise
    except BaseException as error:
        if options.at_boot or run.touched():
            close_gate(str(error) or type(error).__name__)
        raise
    return changes


def identify_machine(settings: Settings, options: RunOptions, run: Run) -> Instance:
    known = bool(options.role or settings.machine.role) and bool(options.stage or settings.machine.stage)
    return identify(settings.machine, known, settings.limits.metadata, run)


def prepare_runtime(settings: Settings, checkout: Checkout, run: Run) -> Runtime:
    runtime = prepare(
        checkout.root / "requirements.lock",
        homes=(paths.BAKED / "runtimes", paths.STATE / "runtimes"),
        into=paths.STATE / "runtimes",
        uv=paths.BAKED / "uv/bin/uv",
        wheels=(str(paths.BAKED / "wheels"), *settings.prepare.wheels),
        index=settings.prepare.index,
        python=settings.prepare.python,
        timeout=min(settings.prepare.within, run.deadline.left()),
        log=run.say,
    )
    run.say(f"runtime {runtime.key}, {runtime.made}")
    return runtime


def _close(settings: Settings, options: RunOptions) -> bool:
    """Whether the gate is still to be closed before the first change."""
    if options.at_boot or settings.limits.drain == "always":
        close_gate("a run has begun")
        return False
    read_gate()
    return settings.limits.drain == "on-change"


def _open(
    choice: Choice, checkout: Checkout, instance: Instance, changes: Changes, engine: Engine, run: Run
) -> None:
    """What the gate vouches for is on disk first (sync(2) waits for it on Linux): after a power cut a
    file whose contents were never written is there, and empty."""
    os.sync()
    remember_good(checkout.sha)
    open_gate(
        Statement(
            role=choice.role.name, stage=choice.stage.name, sha=checkout.sha, boot_id=boot_id(), instance_id=instance.id,
            checks=changes.checks, python=str(engine.python), run=run.id, at=time.time(),
        ),
        began=run.began,
    )  # fmt: skip
