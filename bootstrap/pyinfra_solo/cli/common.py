"""Define the command group `pyinfra-solo`, and print JSON and start runs for all commands.

Each command imports what it needs when it runs, so that all start fast.
"""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyinfra_solo import __version__

if TYPE_CHECKING:  # only click is imported before a command is known
    from pyinfra_solo.run.run import Run
    from pyinfra_solo.run.settings import Settings

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

printed: list[Any] = []
"""JSON values written to stdout.

`main` prints the error as JSON when a command failed before it wrote one.
"""


class _Group(click.Group):
    """A group whose help shows each command's first sentence whole; click cuts it at 45 characters."""

    group_class = type

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, as click does."""
        commands = [(name, self.get_command(context, name)) for name in self.list_commands(context)]
        rows = [(name, one.get_short_help_str(limit=200)) for name, one in commands if one and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Group, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="pyinfra-solo")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file [/etc/pyinfra-solo/config.toml].",
)
@click.pass_context
def command(context: click.Context, config: Path | None) -> None:
    """Configure this machine from an ops repo, and let it take traffic only when it is right."""
    context.obj = config


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """Print the value to stdout as JSON."""
    printed.append(value)
    click.echo(json.dumps(value, indent=2))


def start(
    config: Path | None, name: str, as_json: bool = False, **options: Any
) -> "AbstractContextManager[tuple[Settings, Run]]":
    """Start a run (see run/start.py); with as_json print its report at the end, also after a failure."""
    from pyinfra_solo.run.start import start_run

    return start_run(config, name, at_end=print_json if as_json else None, **options)
