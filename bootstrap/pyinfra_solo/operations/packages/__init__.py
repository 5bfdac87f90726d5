"""Installs the Debian packages of all roles in one `apt-get install`, before their services may start.

pyinfra's own apt.packages lists every package of the machine for each operation, does not wait for
dpkg's lock, and lets a package start its service with the configuration of its maker.
"""

import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra import context, host
from pyinfra.api import StringCommand, operation
from pyinfra.api.arguments import pop_global_arguments
from pyinfra.api.operation import OperationMeta
from pyinfra.api.state import StateHostMeta

from pyinfra_solo import paths
from pyinfra_solo.errors import DataError
from pyinfra_solo.operations.packages import dpkg, program
from pyinfra_solo.operations.script import Program, ProgramFact
from pyinfra_solo.system.text import printable

LOCK_TIMEOUT = 300
"""Seconds to wait for dpkg's lock; unattended-upgrades holds it for minutes."""
LISTS_AGE = 24 * 3600
"""Seconds after which apt's lists are updated before something is installed."""
_LEFT = (str(program.POLICY), program.AUDIT)
"""Entries of a check that are no packages."""
PROGRAM = Program(program, dpkg)
_UNSURE = ("_if", "_ignore_errors", "_run_once")


class MissingPackages(ProgramFact[list[str]]):
    """The given packages that are not installed and configured; and `dpkg --audit` and policy-rc.d's
    path, when an apt or a run that was killed has left something."""

    program = PROGRAM
    default = list

    @staticmethod
    def blank(arguments: Mapping[str, Any]) -> list[str]:
        """Answer for a machine with nothing on it, for a plan without a machine."""
        return list(arguments["packages"])


class LockHolders(ProgramFact[list[str]]):
    """The holders of dpkg's lock or one of apt's: `command (pid 812)` for each process (fcntl(2), F_GETLK)."""

    program = PROGRAM
    verb = "holders"
    default = list


@dataclass(eq=False)
class _Call:
    """One call of `installed`.

    arguments: pyinfra's own, as they hold for it. announced: packages that its operation would install
    and has not, as in a plan; later operations count them as installed.
    """

    packages: Sequence[str]
    lists_age: int
    alone: bool
    arguments: dict[str, Any]
    announced: set[str] = field(default_factory=set)

    @property
    def joins(self) -> bool:
        return not self.alone and not any(self.arguments[name] for name in _UNSURE)

    def takes(self, other: "_Call") -> bool:
        """Test if a later call's packages may come with this one's."""
        return self.joins and other.joins and self.arguments == other.arguments


_calls: WeakKeyDictionary[StateHostMeta, list[_Call]] = WeakKeyDictionary()
"""Calls in the order of their declaration, by an object that each host of each State has of its own."""


def installed(
    packages: Sequence[str], *, lists_age: int = LISTS_AGE, alone: bool = False, **arguments: Any
) -> OperationMeta:
    """Install the Debian packages of these names; their services are not started by that.

    The first operation that misses a package of its own installs also what later calls want, so these
    have nothing to do. A call with an `_if` or `_ignore_errors` of pyinfra's takes part in neither way.

    lists_age: seconds; older lists of apt are updated first. A failing update is no error when the
    lists that are there suffice. alone: not before its turn, and nothing else with it: for packages whose
    source, pin or debconf answers an earlier operation puts there. arguments: pyinfra's own. The
    operation fails after LOCK_TIMEOUT seconds of waiting for dpkg's lock, and names its holder.
    Raises DataError when `packages` is one name.
    """
    if isinstance(packages, str):
        raise DataError(f"packages.installed takes a list. Write [{packages!r}].")
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
        # A command's output is shown only when it has ended.
        sys.stderr.write(printable(f"{host.name}: dpkg's lock is held by {', '.join(holders)}") + "\n")
        sys.stderr.flush()
    # A caller that asks only for a change takes the first command and does not resume this function.
    call.announced = set(missing) if call.joins and not context.state.is_executing else set()
    names = [name for name in missing if name not in _LEFT and name not in announced]
    age = min(one.lists_age for one in wanted)
    yield PROGRAM.command("apply", {"lock_timeout": LOCK_TIMEOUT, "lists_age": age, "packages": names})
    # Resumed: the command has run, or this is a plan and all is still missing.
    call.announced = set(_missing(missing))


def _missing(packages: Iterable[str]) -> list[str]:
    names = [name for name in dict.fromkeys(packages) if name not in _LEFT]
    missing: list[str] = host.get_fact(
        MissingPackages, arguments={"packages": names, "audited": str(paths.RUN / "dpkg-audited")}
    )
    return missing
