"""Define the commands that run the line: boot, run, plan."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyinfra_solo.cli.common import command, start
from pyinfra_solo.errors import DataError, UsageError

if TYPE_CHECKING:  # `gate status` is polled, and imports no msgspec
    from pyinfra_solo.protocol import RunOptions

_SHARED = (
    click.option("--role", metavar="ROLE", help="Use this role, whatever tags and security groups name."),
    click.option("--stage", metavar="STAGE", help="Use this stage, whatever the tag Stage names."),
    click.option("--ref", metavar="REF", help="Use this branch, tag or commit of the ops repo."),
    click.option(
        "--data", "pairs", metavar="KEY=VALUE", multiple=True, help="Set a role's value. May be repeated."
    ),
    click.option("--no-native", is_flag=True, help="Use pyinfra's shell commands for all facts."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, also on failure."),
)


def _run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SHARED):
        function = option(function)
    return function


def _options(pairs: tuple[str, ...], ref: str | None, no_native: bool, **given: Any) -> "RunOptions":
    from pyinfra_solo.protocol import RunOptions
    from pyinfra_solo.run.settings import check_ref

    for pair in pairs:
        if "=" not in pair:
            key = re.match(r"\w*", pair).group()  # type: ignore[union-attr] # the rest may be a secret
            raise UsageError(f"--data '{key}…' is not KEY=VALUE.")
    try:
        if ref:
            check_ref(ref, "--ref")
    except DataError as error:
        raise UsageError(str(error)) from error
    data = dict(pair.split("=", 1) for pair in pairs)
    return RunOptions(data=data, ref=ref, native=not no_native, **given)


def _line(config: Path | None, name: str, options: "RunOptions", *, detailed: bool, as_json: bool) -> int:
    from pyinfra_solo import boot as line

    with start(config, name, as_json, at_boot=options.at_boot) as (settings, going):
        changes = line.boot(settings, options, going)
        status = 2 if detailed and changes.changed else 0
        going.end("ready" if options.open_gate else "done", exit_code=status)
    return status


@command.command()
@click.pass_obj
def boot(config: Path | None) -> int:
    """Run the line at boot: close the gate unless a run of this boot opened it, converge, judge, open it.

    The boot unit runs this. By hand, use `run`.
    """
    from pyinfra_solo.gate import read_gate
    from pyinfra_solo.protocol import RunOptions

    # Open: a run of this boot has vouched for this machine, such as a person's, before the unit's next try.
    return _line(config, "boot", RunOptions(at_boot=not read_gate().open), detailed=False, as_json=False)


@command.command()
@_run_options
@click.option("--no-gate", is_flag=True, help="Do not open the gate at the end.")
@click.option("--detailed-exitcodes", "detailed", is_flag=True, help="Exit status 2 when something changed.")
@click.pass_obj
def run(config: Path | None, /, as_json: bool, no_gate: bool, detailed: bool, **given: Any) -> int:
    """Converge now, as at boot.

    On a machine in service the gate closes only before the first change.
    """
    return _line(config, "run", _options(**given, open_gate=not no_gate), detailed=detailed, as_json=as_json)


@command.command()
@_run_options
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Plan this working tree; fetch nothing.",
)
@click.option("--blank", is_flag=True, help="With --dir: plan a machine with nothing on it. Needs no root.")
@click.pass_obj
def plan(config: Path | None, /, as_json: bool, folder: Path | None, blank: bool, **given: Any) -> int:
    """Show what a run would change, with a diff of every file. Change nothing.

    Exit status 0: nothing to change; 2: something.
    """
    from pyinfra_solo import plan as planning

    if blank and not folder:
        raise UsageError("--blank needs --dir: it plans a working tree.")
    if folder and given["ref"]:
        raise UsageError("--ref and --dir exclude each other: a working tree is planned as it is.")
    options = _options(**given)
    with start(config, "plan", as_json, keep_report=False, locked=not folder) as (settings, going):
        changes = planning.plan(
            settings, options, going, folder=folder, python=Path(sys.executable), blank=blank
        )
        going.end("planned", exit_code=2 if changes.changed else 0)
        if not as_json:
            click.echo("\n".join(planning.lines(changes)))
    return 2 if changes.changed else 0
