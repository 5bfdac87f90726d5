"""Define the commands for the gate: status, close, open."""

from dataclasses import asdict
from pathlib import Path

import click

from pyinfra_solo.cli.common import as_json_option, command, print_json, start


@command.group()
def gate() -> None:
    """Show, close or open the gate: what the balancer's health check sees."""


@gate.command("status")
@as_json_option
def gate_status(as_json: bool) -> int:
    """Show whether the gate is open, and why. Exit status 0: open; 1: closed."""
    from pyinfra_solo.gate import read_gate

    found = read_gate()
    if as_json:
        print_json(asdict(found))
    else:
        click.echo(f"{'open' if found.open else 'closed'}: {found.reason}")
    return 0 if found.open else 1


@gate.command("close")
@click.option("--reason", required=True, metavar="TEXT", help="Why; `status` shows it.")
def gate_close(reason: str) -> int:
    """Close the gate now.

    `gate open`, or the next run that succeeds, opens it.
    """
    from pyinfra_solo.gate import close_gate

    click.echo("closed" if close_gate(reason, reopenable=True) else "closed already")
    return 0


@gate.command("open")
@click.option("--reason", required=True, metavar="TEXT", help="Why; the report keeps it.")
@click.pass_obj
def gate_open(config: Path | None, reason: str) -> int:
    """Open a gate that `gate close` closed, when the role's checks pass."""
    from pyinfra_solo.cli.gate_open import reopen

    with start(config, f"gate open: {reason}") as (_settings, going):
        reopen(going)
        going.end("ready")
    click.echo("open")
    return 0
