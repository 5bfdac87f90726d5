"""Debian packages, present before what they bring may start.

pyinfra's own apt.packages lists every package of the machine for each operation, does not wait for
dpkg's lock, and lets a package start its service with the configuration of its maker.
"""

from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation

from pyinfra_solo.operations import script

LOCK_TIMEOUT = 300
"""Seconds to wait for whoever holds dpkg's lock; unattended-upgrades takes minutes."""


class MissingPackages(FactBase[list[str]]):
    """Which of the given packages are not installed and configured."""

    default = list

    @staticmethod
    def blank(packages: Sequence[str]) -> list[str]:
        """On a machine with nothing on it, for a plan without a machine."""
        return list(packages)

    def command(self, packages: Sequence[str]) -> StringCommand:
        return script.run("packages", "look", "0", *packages)

    def process(self, output: list[str]) -> list[str]:
        return output


@operation()
def installed(packages: Sequence[str]) -> Generator[StringCommand, None, None]:
    """The Debian packages of these names are installed; their services were not started by that."""
    if host.get_fact(MissingPackages, packages=packages):
        yield script.run("packages", "apply", str(LOCK_TIMEOUT), *packages)
    else:
        host.noop(f"installed: {' '.join(packages)}")
