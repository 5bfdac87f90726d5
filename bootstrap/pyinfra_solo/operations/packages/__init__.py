"""Debian packages, present before what they bring may start; all roles' in one `apt-get install`.

pyinfra's own apt.packages lists every package of the machine for each operation, does not wait for
dpkg's lock, and lets a package start its service with the configuration of its maker.
"""

import sys
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra import context, host
from pyinfra.api import FactBase, StringCommand, operation
from pyinfra.api.arguments import pop_global_arguments
from pyinfra.api.operation import OperationMeta
from pyinfra.api.state import StateHostMeta

from pyinfra_solo.operations import native_facts as roles
from pyinfra_solo.operations import script

LOCK_TIMEOUT = 300
"""Seconds to wait for whoever holds dpkg's lock; unattended-upgrades takes minutes."""
LISTS_AGE = 24 * 3600
"""Seconds after which apt's lists are updated before something is installed."""
_POLICY = "/usr/sbin/policy-rc.d"
_UNSURE = ("_if", "_ignore_errors", "_run_once")


class MissingPackages(FactBase[list[str]]):
    """Which of the given packages are not installed and configured; and policy-rc.d's path, when a run
    that was killed has left it."""

    default = list

    @staticmethod
    def blank(packages: Sequence[str]) -> list[str]:
        """On a machine with nothing on it, for a plan without a machine."""
        return list(packages)

    native = staticmethod(roles.missing_packages)

    def command(self, packages: Sequence[str]) -> StringCommand:
        return script.run("packages", "look", *packages)

    def process(self, output: list[str]) -> list[str]:
        return output


class LockHolders(FactBase[list[str]]):
    """Who holds dpkg's lock or one of apt's: `command (pid 812)` for each process (proc(5), fdinfo)."""

    default = list

    def command(self) -> StringCommand:
        return script.run("packages", "holders")

    def process(self, output: list[str]) -> list[str]:
        return output


@dataclass(eq=False)
class _Call:
    """A call of `installed`. arguments: pyinfra's own, as they hold for it. announced: what its operation
    would install and has not, as in a plan; later operations count it as installed."""

    packages: Sequence[str]
    lists_age: int
    alone: bool
    arguments: dict[str, Any]
    announced: set[str] = field(default_factory=set)

    @property
    def joins(self) -> bool:
        return not self.alone and not any(self.arguments[name] for name in _UNSURE)

    def takes(self, other: "_Call") -> bool:
        """Whether a later call's packages may come with this one's."""
        return self.joins and other.joins and self.arguments == other.arguments


_calls: WeakKeyDictionary[StateHostMeta, list[_Call]] = WeakKeyDictionary()
"""In the order of their declaration, by what pyinfra makes anew for each host of each State."""


def installed(
    packages: Sequence[str], *, lists_age: int = LISTS_AGE, alone: bool = False, **arguments: Any
) -> OperationMeta:
    """The Debian packages of these names are installed; their services were not started by that.

    The first operation that misses a package of its own installs also what later calls want, so these
    find it done. A call with an `_if` or `_ignore_errors` of pyinfra's takes part in neither way.

    lists_age: seconds; older lists of apt are updated first. That an update fails is no error, when the
    lists that are there suffice. alone: not before its turn, and nothing else with it: for packages whose
    source, pin or debconf answers an operation before it puts there. arguments: pyinfra's own. The
    operation fails after LOCK_TIMEOUT seconds of waiting for dpkg's lock, and says who holds it.
    """
    arguments.setdefault("name", f"installed: {' '.join(packages)}")
    effective, _ = pop_global_arguments(context.state, context.host, dict(arguments))
    own = {key: value for key, value in effective.items() if key != "name"}
    call = _Call(tuple(packages), lists_age, alone, own)
    calls = _calls.setdefault(context.state.get_meta_for_host(context.host), [])
    for earlier in calls:
        if earlier.announced and earlier.takes(call):
            earlier.announced.update(packages)
    calls.append(call)
    return _installed(call=call, **arguments)


@operation()
def _installed(call: _Call) -> Generator[StringCommand, None, None]:
    calls = _calls[context.state.get_meta_for_host(context.host)]
    place = calls.index(call)
    call.announced = set()
    announced = {name for earlier in calls[:place] for name in earlier.announced}
    if not set(_missing(call.packages)) - announced:
        host.noop(f"installed: {' '.join(call.packages)}")
        return
    wanted = [call, *(later for later in calls[place + 1 :] if call.takes(later))]
    missing = _missing(name for one in wanted for name in one.packages)
    if holders := host.get_fact(LockHolders):
        # Nobody hears what a command says before it has ended.
        sys.stderr.write(f"{host.name}: dpkg's lock is held by {', '.join(holders)}\n")
        sys.stderr.flush()
    # What asks only whether there is a change takes the first command and does not come back.
    call.announced = set(missing) if call.joins and not context.state.is_executing else set()
    names = [name for name in missing if name != _POLICY and name not in announced]
    age = min(one.lists_age for one in wanted)
    yield script.run("packages", "apply", str(LOCK_TIMEOUT), str(age), *names)
    # Back here the command has done its work, or this is a plan and all is still missing.
    call.announced = set(_missing(missing))


def _missing(packages: Iterable[str]) -> list[str]:
    names = [name for name in dict.fromkeys(packages) if name != _POLICY]
    missing: list[str] = host.get_fact(MissingPackages, packages=names)
    return missing
