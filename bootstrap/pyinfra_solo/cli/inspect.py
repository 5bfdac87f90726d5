"""Define the commands that only read: status, report."""

import json
from pathlib import Path

import click

from pyinfra_solo.cli.common import as_json_option, command, print_json
from pyinfra_solo.errors import UsageError


@command.command()
@as_json_option
def status(as_json: bool) -> int:
    """Show role, commit, whether the machine is in service, and if not, why.

    Exit status 0: in service; 1: not.
    """
    from pyinfra_solo.report import status as machine

    found = machine.status()
    print_json(found.to_json()) if as_json else click.echo("\n".join(machine.lines(found)))
    return 0 if found.ready else 1


@command.command()
@click.argument("run", required=False)
@click.option("--slow", is_flag=True, help="Show the ten slowest operations, and what they waited for.")
@click.option("--timeline", is_flag=True, help="Show the whole boot as bars, from the kernel to the gate.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write both to an HTML page.")
@as_json_option
def report(run: str | None, slow: bool, timeline: bool, html: Path | None, as_json: bool) -> None:
    """Show what the last run, or RUN, changed, and how long each station took."""
    from pyinfra_solo.report import html as page
    from pyinfra_solo.report import text
    from pyinfra_solo.report.records import encode
    from pyinfra_solo.report.store import read

    if sum((slow, timeline, bool(html), as_json)) > 1:
        raise UsageError("--slow, --timeline, --html and --json exclude each other. Give one.")
    found = read(run)
    if html:
        page.write(found, html)
    elif as_json:
        print_json(json.loads(encode(found)))
    else:
        click.echo("\n".join(text.render(found, slow=slow, timeline=timeline)))
