"""Define the commands that set up: install the boot units, write a new ops repo."""

from pathlib import Path

import click

from pyinfra_solo.cli.common import command


@command.command()
@click.option(
    "--init",
    "kind",
    type=click.Choice(["systemd", "upstart", "sysv"]),
    help="Install for this init system, not the running one.",
)
@click.option("--now", is_flag=True, help="Start the boot run now.")
def install(kind: str | None, now: bool) -> int:
    """Install and enable the boot units for this machine's init system.

    A second call changes nothing.
    """
    from pyinfra_solo.units.install import install as do_install

    for line in do_install(kind, now).lines():
        click.echo(line)
    return 0


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="The ops repo's name, for ops.toml [the folder's].")
def init(directory: Path, name: str | None) -> int:
    """Write a new ops repo into DIRECTORY.

    deploy.py, roles, inventories, bootstrap with the engine, tests, README, ops.toml with its name.
    """
    from pyinfra_solo.cli import init as new_repo

    click.echo("\n".join(new_repo.summary(directory, new_repo.init(directory, name))))
    return 0
