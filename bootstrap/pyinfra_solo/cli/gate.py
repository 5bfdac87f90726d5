"""Define the commands for the gate: status, close, open."""

import time
from dataclasses import replace
from pathlib import Path

import click

from pyinfra_solo import paths
from pyinfra_solo.cli.common import as_json_option, command, print_json, start
from pyinfra_solo.errors import JudgedError


@command.group()
def gate() -> None:
    """Show, close or open the gate: what the balancer's health check sees."""


@gate.command("status")
@as_json_option
def gate_status(as_json: bool) -> int:
    """Show whether the gate is open, and why. Exit status 0: open; 1: closed."""
    from pyinfra_solo.gate import read_gate, to_json
    from pyinfra_solo.system.text import printable

    found = read_gate()
    if as_json:
        print_json(to_json(found))
    else:
        click.echo(printable(f"{'open' if found.open else 'closed'}: {found.reason}"))
    return 0 if found.open else 1


@gate.command("close")
@click.option("--reason", required=True, metavar="TEXT", help="Why; `status` shows it.")
def gate_close(reason: str) -> int:
    """Close the gate now. Exit status 30: something else answers /ping.html with 200.

    `gate open`, or the next run that succeeds, opens it.
    """
    from pyinfra_solo.gate import close_gate, kept_statement
    from pyinfra_solo.stations.page import other_page

    click.echo("closed" if close_gate(reason, reopenable=True) else "closed already")
    statement = kept_statement()
    if problem := other_page(statement.checks if statement else []):
        raise JudgedError(problem)
    return 0


@gate.command("open")
@click.option("--reason", required=True, metavar="TEXT", help="Why; the report keeps it.")
@click.pass_obj
def gate_open(config: Path | None, reason: str) -> int:
    """Open a gate that `gate close` closed in this boot, when the role's checks pass."""
    from pyinfra_solo.gate import kept_statement, open_gate
    from pyinfra_solo.report.records import StationName
    from pyinfra_solo.stations.converge import engine_here, engine_of
    from pyinfra_solo.stations.judge import judge, require_no_other_page

    with start(config, f"gate open: {reason}") as (_settings, going):
        statement = kept_statement()
        if statement is None:
            raise JudgedError(
                "Not reopened: no successful run since this boot, or something changed since. Run `pyinfra-solo run`."
            )
        going.record(role=statement.role, stage=statement.stage, sha=statement.sha)
        with going.station(StationName.JUDGE):
            root, python = paths.STATE / "checkouts" / statement.sha, Path(statement.python)
            engine = engine_of(root, python) if root.is_dir() else engine_here(python)
            verdict = judge([dict(check) for check in statement.checks], engine, going.deadline)
            going.record(findings=list(verdict.findings))
            verdict.require_ready()
            require_no_other_page([dict(check) for check in statement.checks])
        with going.station(StationName.OPEN_GATE):
            open_gate(replace(statement, run=going.id, at=time.time()), began=going.began)
        going.end("ready")
    click.echo("open")
    return 0


@gate.command("unfence")
def gate_unfence() -> int:
    """Let web servers start before a run has loaded this machine's configuration.

    It starts none. They serve what the image configures, until the next boot; the gate stays closed.
    """
    from pyinfra_solo import fence

    fence.release()
    if problem := fence.problem():
        raise JudgedError(problem)
    click.echo("web servers may start, in this boot")
    return 0
