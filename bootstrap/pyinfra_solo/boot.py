"""The line: close gate -> identify -> fetch -> prepare -> resolve -> converge -> judge -> open gate.

A boot is one straight line, and `boot` is that line. The engine baked into the image fetches,
verifies and prepares; the engine of the checkout converges and judges.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pyinfra_solo import fence, paths
from pyinfra_solo.errors import IdentityError, PausedError
from pyinfra_solo.gate import GatePolicy, Statement, boot_id, close_gate, open_gate, read_gate
from pyinfra_solo.protocol import VERSION, Mode, Request, RunOptions
from pyinfra_solo.report.records import StationName
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.stations.converge import Changes, Engine, converge, engine_of
from pyinfra_solo.stations.fetch import fetch
from pyinfra_solo.stations.identify import Instance, identify
from pyinfra_solo.stations.judge import judge, start_waiting_web_servers
from pyinfra_solo.stations.last_good import last_good, remember_good
from pyinfra_solo.stations.page import other_page
from pyinfra_solo.stations.prepare import prepare
from pyinfra_solo.stations.resolve import Candidate, resolve, stage_of
from pyinfra_solo.system import kept


@dataclass(frozen=True, kw_only=True)
class Tree:
    """An ops repo on disk, and the engine that converges it. sha: None for a folder given by hand."""

    root: Path
    engine: Engine
    sha: str | None = None
    ref: str = ""


@dataclass(frozen=True, kw_only=True)
class Target:
    """This machine, its role and stage, and the ops repo that it is converged to."""

    instance: Instance
    role: Candidate
    stage: Candidate
    tree: Tree


def boot(settings: Settings, options: RunOptions, run: Run) -> Changes:
    """Converge this machine, judge it, and open its gate. Raises SoloError; `start_run` closes it then."""
    with run.station(StationName.CLOSE_GATE):
        GatePolicy(at_boot=options.at_boot, drain=settings.limits.drain).before_run()
    target = choose(settings, options, run, lambda stage: fetch_and_prepare(settings, options, run, stage))
    with run.station(StationName.CONVERGE):
        changes = start_converge(settings, options, run, target, "converge")
        run.say(f"{changes.changed} of {len(changes.operations)} operations changed something")
    with run.station(StationName.JUDGE):
        run.gate_in_doubt = True
        start_waiting_web_servers(changes.checks, run.say)
        verdict = judge(changes.checks, target.tree.engine, run.deadline)
        run.record(findings=list(verdict.findings))
        page = other_page(changes.checks) if options.open_gate else ""
        if page and options.at_boot:
            fence.stop(fence.running(), run.say)
        verdict.require_ready(page)
        if settings.converge.idempotence == "refuse":
            changes.require_idempotent()
        run.say(f"{len(verdict.findings)} checks passed")
    if not options.open_gate and changes.changed:
        close_gate("a run without the gate (--no-gate) has changed this machine")
    if options.open_gate:
        with run.station(StationName.OPEN_GATE):
            sha = target.tree.sha or "unknown"
            remember_good(sha, target.tree.ref)
            vouch(target, sha, changes.checks, str(target.tree.engine.python), run)
    return changes


def choose(
    settings: Settings,
    options: RunOptions,
    run: Run,
    tree_of: Callable[[str], Tree],
    *,
    instance: Instance | None = None,
) -> Target:
    """Identify this machine, get the ops repo of its stage, and resolve its one role. Raises SoloError.

    tree_of: gives the ops repo for a stage's name: fetched, or a folder. instance: plan for this one,
    and do not ask the machine.
    """
    with run.station(StationName.IDENTIFY):
        if instance is None:
            instance = _identify(settings, options, run)
            read_gate(instance.id)
        stage = stage_of(options.stage, settings.machine.stage, instance)
    tree = tree_of(stage.name)
    with run.station(StationName.RESOLVE):
        choice = resolve(tree.root, options.role, settings.machine.role, stage, instance)
        run.record(role=choice.role.name, stage=choice.stage.name)
        run.say(f"{choice.role}, {choice.stage}")
    return Target(instance=instance, role=choice.role, stage=choice.stage, tree=tree)


def fetch_and_prepare(
    settings: Settings, options: RunOptions, run: Run, stage: str, *, tidy: bool = True
) -> Tree:
    """Fetch the commit that the stage wants, and build the runtime that its lock file names."""
    with run.station(StationName.FETCH):
        checkout = fetch(
            settings.ops,
            stage,
            options.ref,
            paths.STATE,
            run,
            good=last_good(options.ref or settings.ops.refs.get(stage, settings.ops.ref)),
            tidy=tidy,
        )
        run.record(sha=checkout.sha, source=checkout.source)
    with run.station(StationName.PREPARE):
        runtime = prepare(
            checkout.root / "requirements.lock",
            homes=(paths.BAKED / "runtimes", paths.STATE / "runtimes"),
            into=paths.STATE / "runtimes",
            uv=paths.BAKED / "uv/bin/uv",
            wheels=(str(paths.BAKED / "wheels"), *settings.prepare.wheels),
            index=settings.prepare.index,
            python=settings.prepare.python,
            timeout=min(settings.prepare.timeout, run.deadline.left()),
            log=run.say,
        )
        run.say(f"runtime {runtime.key}, {runtime.made}")
    return Tree(
        root=checkout.root,
        engine=engine_of(checkout.root, runtime.python),
        sha=checkout.sha,
        ref=checkout.ref,
    )


def start_converge(settings: Settings, options: RunOptions, run: Run, target: Target, mode: Mode) -> Changes:
    """Run the station converge on the target, or its plan, and report its events through `run`."""
    native = options.native and settings.converge.native
    request = Request(
        protocol=VERSION,
        root=str(target.tree.root),
        role=target.role.name,
        stage=target.stage.name,
        mode=mode,
        operation_timeout=settings.limits.operation,
        drain=settings.limits.drain,
        options=replace(options, native=native),
    )
    return converge(
        request,
        target.tree.engine,
        deadline=run.deadline,
        observe=run.observe if mode == "converge" else run.observe_plan,
        events_file=run.events_file,
        lock=run.lock,
    )


def vouch(target: Target, sha: str, checks: Sequence[dict[str, Any]], python: str, run: Run) -> None:
    """Open the gate, once everything that it vouches for is on disk.

    sync(2) waits on Linux: after a power cut, a file whose contents were not written is there, and empty.
    """
    os.sync()
    statement = Statement(
        role=target.role.name,
        stage=target.stage.name,
        sha=sha,
        boot_id=boot_id(),
        instance_id=target.instance.id,
        checks=checks,
        python=python,
        run=run.id,
        at=time.time(),
        kept=[str(one) for one in kept.read(paths.RUN / "kept")],
    )
    try:
        open_gate(statement, began=run.began)
    except PausedError:
        run.gate_in_doubt = False  # the operator's close, and the statement for `gate open`, must stay
        raise
    run.gate_in_doubt = False


def _identify(settings: Settings, options: RunOptions, run: Run) -> Instance:
    machine = settings.machine
    known = bool(options.role or machine.role) and bool(options.stage or machine.stage)
    try:
        instance = identify(machine, known, settings.limits.metadata, run)
    except IdentityError as error:
        run.record(instance_id=error.instance_id)
        if error.cure:
            raise IdentityError(f"{str(error).rstrip('.')}. {error.cure}") from error
        raise
    run.record(instance_id=instance.id)
    return instance
