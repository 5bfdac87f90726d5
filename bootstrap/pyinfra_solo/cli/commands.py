"""The commands. Each imports what it needs when it runs, so that all start fast."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyinfra_solo import __version__
from pyinfra_solo.errors import DataError, UsageError

if TYPE_CHECKING:
    from pyinfra_solo.run.run import Run
    from pyinfra_solo.run.settings import Settings

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

printed: list[Any] = []
"""What went to stdout as JSON: one value, whole, also when there was no run to report."""


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="pyinfra-solo")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings [/etc/pyinfra-solo/config.toml].",
)
@click.pass_context
def command(context: click.Context, config: Path | None) -> None:
    """A machine that configures itself at boot and takes traffic only when it is right."""
    context.obj = config


def _choices(function: Callable[..., Any]) -> Callable[..., Any]:
    """What run and plan share."""
    for option in reversed(
        [
            click.option("--role", metavar="ROLE", help="Instead of the tag Role and the security groups."),
            click.option("--stage", metavar="STAGE", help="Instead of the tag Stage."),
            click.option(
                "--ref",
                metavar="REF",
                help="A branch, tag or commit of the ops repo, instead of the settings'.",
            ),
            click.option(
                "--data", "pairs", metavar="KEY=VALUE", multiple=True, help="A role's value. May be repeated."
            ),
            click.option(
                "--stock",
                is_flag=True,
                help="Every fact and command by a shell, nothing in the process: slow.",
            ),
            click.option("--json", "as_json", is_flag=True, help="The report on stdout, also on failure."),
        ]
    ):
        function = option(function)
    return function


def _run_options(asked: dict[str, Any], *, gate: bool = True) -> Any:
    """Of what `_choices` were given."""
    from pyinfra_solo.boot import RunOptions

    flags, ref = _flags(asked.pop("pairs")), _ref(asked.pop("ref"))
    return RunOptions(flags=flags, ref=ref, gate=gate, **asked)


_as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@command.command()
@click.pass_obj
def boot(config: Path | None) -> int:
    """What the boot unit runs.

    Close the gate, converge, judge, open the gate.
    """
    from pyinfra_solo.boot import RunOptions

    return _line(config, "boot", RunOptions(at_boot=True), detailed=False, as_json=False)


@command.command()
@_choices
@click.option("--no-gate", is_flag=True, help="Do not open the gate at the end.")
@click.option(
    "--detailed-exitcodes", "detailed", is_flag=True, help="Exit status 2 when something was changed."
)
@click.pass_obj
def run(config: Path | None, /, as_json: bool, no_gate: bool, detailed: bool, **asked: Any) -> int:
    """The same line by hand. On a machine in service the gate closes only when something changes."""
    return _line(config, "run", _run_options(asked, gate=not no_gate), detailed=detailed, as_json=as_json)


@command.command()
@_choices
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Plan this working tree; fetch nothing.",
)
@click.option(
    "--blank",
    is_flag=True,
    help="With --dir: against a machine with nothing on it. Needs no root, and no machine.",
)
@click.pass_obj
def plan(config: Path | None, /, as_json: bool, folder: Path | None, blank: bool, **asked: Any) -> int:
    """What a run would change, with a diff of every file. Exit status 0: nothing; 2: something."""
    from pyinfra_solo import plan as planning

    if blank and not folder:
        raise UsageError("--blank needs --dir: it plans a working tree.")
    options = _run_options(asked)
    with _run(config, "plan", as_json, keep_report=False, locked=not folder) as (settings, going):
        changes = planning.plan(
            settings, options, going, folder=folder, python=Path(sys.executable), blank=blank
        )
        going.end("planned", exit_code=2 if changes.changed else 0)
        if not as_json:
            click.echo("\n".join(planning.lines(changes)))
    return 2 if changes.changed else 0


@command.command()
@_as_json
def status(as_json: bool) -> int:
    """What this machine is, and whether it is in.

    Since when, and if not, why not. Exit status 0: in; 1: not.
    """
    from pyinfra_solo.report import status as telling

    found = telling.status()
    print_json(found.to_json()) if as_json else click.echo("\n".join(telling.lines(found)))
    return 0 if found.ready else 1


@command.command()
@click.argument("run", required=False)
@click.option("--slow", is_flag=True, help="The ten slowest operations, and what they waited for.")
@click.option("--timeline", is_flag=True, help="All of the boot as bars, from the kernel to the gate.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write both as a page.")
@_as_json
def report(run: str | None, slow: bool, timeline: bool, html: Path | None, as_json: bool) -> None:
    """What a run did and what took its time: the last run, or RUN."""
    from pyinfra_solo.report import html as page
    from pyinfra_solo.report import text as summary
    from pyinfra_solo.report.records import encode
    from pyinfra_solo.report.store import read

    if sum((slow, timeline, bool(html), as_json)) > 1:
        raise UsageError("--slow, --timeline, --html and --json are different answers. Ask for one.")
    render = read(run)
    if html:
        page.write(render, html)
    elif as_json:
        print_json(json.loads(encode(render)))
    else:
        click.echo("\n".join(summary.render(render, slow=slow, timeline=timeline)))


@command.group()
def gate() -> None:
    """The gate: what the balancer's health check sees."""


@gate.command("status")
@_as_json
def gate_status(as_json: bool) -> int:
    """Open or closed, and why. Exit status 0: open; 1: closed."""
    from dataclasses import asdict

    from pyinfra_solo.gate import read_gate

    found = read_gate()
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(f"{'open' if found.open else 'closed'}: {found.reason}")
    return 0 if found.open else 1


@gate.command("close")
@click.option("--reason", required=True, metavar="TEXT", help="Why: `status` shows it.")
def gate_close(reason: str) -> int:
    """Close it now. `gate open`, or the next run, opens it again when all is right."""
    from pyinfra_solo.gate import close_gate

    click.echo("closed" if close_gate(reason, reopenable=True) else "closed already")
    return 0


@gate.command("open")
@click.option("--reason", required=True, metavar="TEXT", help="Why: the report keeps it.")
@click.pass_obj
def gate_open(config: Path | None, reason: str) -> int:
    """Open what `gate close` closed, when the role's checks pass anew."""
    from pyinfra_solo.cli.gate_open import reopen

    with _run(config, f"gate open: {reason}", as_json=False) as (_settings, going):
        reopen(going)
        going.end("ready")
    click.echo("open")
    return 0


@command.command()
@click.option(
    "--init", "kind", type=click.Choice(["systemd", "upstart", "sysv"]), help="Instead of the one that runs."
)
@click.option("--now", is_flag=True, help="Start the boot run now, too.")
def install(kind: str | None, now: bool) -> int:
    """Install the boot units.

    Written and enabled for the init system that runs this machine. Run again, it changes nothing.
    """
    from pyinfra_solo.units.install import install as do_install

    for line in do_install(kind, now).lines():
        click.echo(line)
    return 0


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
def init(directory: Path) -> int:
    """Write a new ops repo into DIRECTORY.

    deploy.py, roles, inventories, bootstrap with the engine, tests, README.
    """
    from pyinfra_solo.cli import init as new_repo

    click.echo("\n".join(new_repo.summary(directory, new_repo.init(directory))))
    return 0


def _line(config: Path | None, name: str, options: Any, *, detailed: bool, as_json: bool) -> int:
    from pyinfra_solo.boot import boot as go

    with _run(config, name, as_json) as (settings, going):
        changes = go(settings, options, going)
        status = 2 if detailed and changes.changed else 0
        going.end("ready" if options.gate else "done", exit_code=status)
    return status


@contextmanager
def _run(
    config: Path | None, name: str, as_json: bool, *, keep_report: bool = True, locked: bool = True
) -> Iterator[tuple["Settings", "Run"]]:
    """A run with its settings, deadline, lock and report. What goes wrong in any of them is in the
    report, and at boot closes the gate: there is no failure before it begins."""
    from pyinfra_solo.run import start as runs

    with runs.start_run(
        config, name, keep_report=keep_report, locked=locked, then=print_json if as_json else None
    ) as start_run:
        yield start_run


def _flags(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            key = re.match(r"\w*", pair).group()  # type: ignore[union-attr] # the rest may be a secret
            raise UsageError(f"--data '{key}…' is not KEY=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def _ref(ref: str | None) -> str | None:
    from pyinfra_solo.run.settings import check_ref

    if ref:
        try:
            check_ref(ref, "--ref")
        except DataError as error:
            raise UsageError(str(error)) from error
    return ref


def print_json(value: Any) -> None:
    printed.append(value)
    click.echo(json.dumps(value, indent=2))
