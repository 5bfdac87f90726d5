"""What a run would change, and nothing changed: every operation, with a diff of every file."""

from collections.abc import Iterator
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.boot import RunOptions, identify_machine, prepare_runtime
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.stations.converge import Changes, Engine, converge, engine_of
from pyinfra_solo.stations.fetch import fetch
from pyinfra_solo.stations.identify import Instance
from pyinfra_solo.stations.last_good import last_good
from pyinfra_solo.stations.resolve import resolve, stage_of
from pyinfra_solo.system.text import printable


def plan(
    settings: Settings, options: RunOptions, run: Run, *, folder: Path | None, python: Path, blank: bool
) -> Changes:
    """folder: a working tree to plan instead of the wanted commit; then nothing is fetched, and the
    engine is this one (`python`). blank: against a machine with nothing on it, without touching one.
    Raises SoloError.
    """
    with run.station("identify"):
        instance = Instance(on_ec2=False) if blank else identify_machine(settings, options, run)
        stage = stage_of(options.stage, settings.machine.stage, instance)
    if folder:
        root, engine = folder.resolve(), engine_of(folder.resolve(), python)
    else:
        root, engine = _fetched(settings, options, stage.name, run)
    with run.station("resolve"):
        choice = resolve(root, options.role, settings.machine.role, stage, instance)
        run.report.role, run.report.stage = choice.role.name, choice.stage.name
        run.say(f"{choice.role}, {choice.stage}")
    with run.station("plan"):
        return converge(
            root, engine, choice, options.flags, run,
            operation_seconds=settings.limits.operation, mode="blank" if blank else "plan",
            stock=options.stock or not settings.converge.native,
        )  # fmt: skip


def _fetched(settings: Settings, options: RunOptions, stage: str, run: Run) -> tuple[Path, Engine]:
    with run.station("fetch"):
        checkout = fetch(settings.ops, stage, options.ref, paths.STATE, run, good=last_good(), tidy=False)
        run.report.sha, run.report.source = checkout.sha, checkout.source
    with run.station("prepare"):
        return checkout.root, engine_of(checkout.root, prepare_runtime(settings, checkout, run).python)


def lines(changes: Changes) -> Iterator[str]:
    """The plan as text: operations that would change something, with what they would do."""
    for operation in changes.operations:
        if operation.changed:
            yield printable(f"~ {operation.name}")
            yield from (printable(f"    {line}") for line in operation.diff)
    same = len(changes.operations) - changes.changed
    yield f"{changes.changed} operations would change this machine, {same} would not."
