"""Preview a run: every operation that would change something, with a diff of every file."""

from collections.abc import Iterator
from pathlib import Path

from pyinfra_solo.boot import Tree, choose, fetch_and_prepare, start_converge
from pyinfra_solo.protocol import RunOptions
from pyinfra_solo.report.records import StationName
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.stations.converge import Changes, engine_of
from pyinfra_solo.stations.identify import Instance
from pyinfra_solo.system.text import printable


def plan(
    settings: Settings, options: RunOptions, run: Run, *, folder: Path | None, python: Path, blank: bool
) -> Changes:
    """Plan the wanted commit, or the working tree `folder`; change nothing. Raises SoloError.

    A folder is planned by its own engine with this `python`, and nothing is fetched. blank: plan a machine
    with nothing on it, without asking this one.
    """

    def tree_of(stage: str) -> Tree:
        if folder:
            return Tree(root=folder.resolve(), engine=engine_of(folder.resolve(), python))
        return fetch_and_prepare(settings, options, run, stage, tidy=False)

    target = choose(settings, options, run, tree_of, instance=Instance(on_ec2=False) if blank else None)
    with run.station(StationName.PLAN):
        return start_converge(settings, options, run, target, "blank" if blank else "plan")


def lines(changes: Changes) -> Iterator[str]:
    """Yield the plan as text: the operations that would change something, and how; and warnings of others."""
    for operation in changes.operations:
        if operation.changed or operation.output:
            yield printable(f"{'~' if operation.changed else '!'} {operation.name}")
            yield from (printable(f"    {line}") for line in (*operation.diff, *operation.output))
    same = len(changes.operations) - changes.changed
    yield f"{changes.changed} operations would change this machine, {same} would not."
