"""The command `pyinfra-solo`. stdout is data, stderr is talk; the exit status is errors.py's."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pyinfra_solo import __version__
from pyinfra_solo.errors import DataError, SoloError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyinfra_solo.run import Run
    from pyinfra_solo.settings import Settings

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class InterruptedRunError(SoloError):
    """The run was told to stop. Its exit status is what a shell makes of the signal: 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(f"The run was stopped by {signal.Signals(number).name}.")
        self.exit_code = 128 + number


def main() -> NoReturn:
    """Every failure ends here, as one line on stderr and the exit status of its kind."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _stop)
    try:
        sys.exit(command.main(prog_name="pyinfra-solo", standalone_mode=False) or 0)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        _json_if_asked(error.format_message(), UsageError.exit_code)
        sys.exit(UsageError.exit_code)
    except PermissionError as error:
        if os.geteuid() == 0:
            raise
        _say(f"pyinfra-solo: {error.filename}: {error.strerror}. Run it as root.")
        _json_if_asked(f"{error.filename}: {error.strerror}. Run it as root.", UsageError.exit_code)
        sys.exit(UsageError.exit_code)
    except SoloError as error:
        _say(f"pyinfra-solo: {error}")
        _json_if_asked(str(error), error.exit_code)
        sys.exit(error.exit_code)
    finally:
        _drop_unheard()


_printed: list[Any] = []
"""What went to stdout as JSON: one value, whole, also when there was no run to report."""


def _json_if_asked(error: str, exit_code: int) -> None:
    if "--json" in sys.argv[1:] and not _printed and "'--json'" not in error:
        _print_json({"error": error, "exit_code": exit_code})


def _drop_unheard() -> None:
    """Of what stderr could not take Python would make exit status 120 (Py_FinalizeEx)."""
    try:
        if sys.stderr:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _stop(number: int, _frame: object) -> None:
    raise InterruptedRunError(number)


def _say(text: str) -> None:
    from pyinfra_solo.talk import printable

    with suppress(OSError):  # nobody hears it; the exit status says it too
        click.echo(printable(text), err=True)


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
            click.option("--json", "as_json", is_flag=True, help="The report on stdout, also on failure."),
        ]
    ):
        function = option(function)
    return function


@command.command()
@click.pass_obj
def boot(config: Path | None) -> int:
    """What the boot unit runs.

    Close the gate, converge, judge, open the gate.
    """
    from pyinfra_solo.boot import Wishes

    return _line(config, "boot", Wishes(at_boot=True), detailed=False, as_json=False)


@command.command()
@_choices
@click.option("--no-gate", is_flag=True, help="Do not open the gate at the end.")
@click.option(
    "--detailed-exitcodes", "detailed", is_flag=True, help="Exit status 2 when something was changed."
)
@click.pass_obj
def run(
    config: Path | None,
    role: str | None,
    stage: str | None,
    ref: str | None,
    pairs: tuple[str, ...],
    as_json: bool,
    no_gate: bool,
    detailed: bool,
) -> int:
    """The same line by hand. On a machine in service the gate closes only when something changes."""
    from pyinfra_solo.boot import Wishes

    wishes = Wishes(role=role, stage=stage, ref=_ref(ref), flags=_flags(pairs), gate=not no_gate)
    return _line(config, "run", wishes, detailed=detailed, as_json=as_json)


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
def plan(
    config: Path | None,
    role: str | None,
    stage: str | None,
    ref: str | None,
    pairs: tuple[str, ...],
    as_json: bool,
    folder: Path | None,
    blank: bool,
) -> int:
    """What a run would change, with a diff of every file. Exit status 0: nothing; 2: something."""
    from pyinfra_solo import plan as planning
    from pyinfra_solo.boot import Wishes

    if blank and not folder:
        raise UsageError("--blank needs --dir: it plans a working tree.")
    wishes = Wishes(role=role, stage=stage, ref=_ref(ref), flags=_flags(pairs))
    with _run(config, "plan", as_json, keep_report=False, locked=not folder) as (settings, going):
        changes = planning.plan(
            settings, wishes, going, folder=folder, python=Path(sys.executable), blank=blank
        )
        going.end("planned", exit_code=2 if changes.changed else 0)
        if not as_json:
            click.echo("\n".join(planning.lines(changes)))
    return 2 if changes.changed else 0


@command.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(as_json: bool) -> int:
    """What this machine is, and whether it is in.

    Since when, and if not, why not. Exit status 0: in; 1: not.
    """
    from pyinfra_solo import status as telling

    found = telling.status()
    _print_json(found.to_json()) if as_json else click.echo("\n".join(telling.lines(found)))
    return 0 if found.ready else 1


@command.group()
def gate() -> None:
    """The gate: what the balancer's health check sees."""


@gate.command("status")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def gate_status(as_json: bool) -> int:
    """Open or closed, and why. Exit status 0: open; 1: closed."""
    from dataclasses import asdict

    from pyinfra_solo.gate import look

    found = look()
    if as_json:
        _print_json(asdict(found))
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
    from pyinfra_solo.reopen import reopen

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
    from pyinfra_solo.install import install as do_install

    for line in do_install(kind, now).lines():
        click.echo(line)
    return 0


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
def init(directory: Path) -> int:
    """Write a new ops repo into DIRECTORY.

    deploy.py, roles, inventories, bootstrap with the engine, tests, README.
    """
    from pyinfra_solo.skeleton import init as write

    for path in write(directory):
        click.echo(path)
    return 0


def _line(config: Path | None, name: str, wishes: Any, *, detailed: bool, as_json: bool) -> int:
    from pyinfra_solo.boot import boot as go

    with _run(config, name, as_json) as (settings, going):
        changes = go(settings, wishes, going)
        status = 2 if detailed and changes.changed else 0
        going.end("ready" if wishes.gate else "done", exit_code=status)
    return status


@contextmanager
def _run(
    config: Path | None, name: str, as_json: bool, *, keep_report: bool = True, locked: bool = True
) -> "Iterator[tuple[Settings, Run]]":
    """A run with its settings, deadline, lock and report. What goes wrong in any of them is in the
    report, and at boot closes the gate: there is no failure before it begins."""
    from pyinfra_solo import runs

    with runs.begun(
        config, name, keep_report=keep_report, locked=locked, then=_print_json if as_json else None
    ) as begun:
        yield begun


def _flags(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            key = re.match(r"\w*", pair).group()  # type: ignore[union-attr] # the rest may be a secret
            raise UsageError(f"--data '{key}…' is not KEY=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def _ref(ref: str | None) -> str | None:
    from pyinfra_solo.settings import check_ref

    if ref:
        try:
            check_ref(ref, "--ref")
        except DataError as error:
            raise UsageError(str(error)) from error
    return ref


def _print_json(value: Any) -> None:
    _printed.append(value)
    click.echo(json.dumps(value, indent=2))
