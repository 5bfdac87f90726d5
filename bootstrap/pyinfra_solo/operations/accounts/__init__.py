"""Accounts, one fact for each: pyinfra's server.user asks about every user of the machine.

The keys that may log in are exactly those given: a key that is taken out of the data is taken off
the machine.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import State, StringCommand, operation

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations.accounts import program
from pyinfra_solo.operations.script import Program, ProgramFact
from pyinfra_solo.system.text import ACCOUNT

_KEY = re.compile(r"[ -~]*\b(ssh|ecdsa|sk)-[ -~]+ [A-Za-z0-9+/=]{16,}( [ -~]*)?", re.ASCII)
PROGRAM = Program(program)


class AccountGaps(ProgramFact[list[str]]):
    """The gaps of an account: account, half, shell, groups, home, keys; none when it is right."""

    program = PROGRAM
    default = list

    @staticmethod
    def blank(arguments: Mapping[str, Any]) -> list[str]:  # noqa: ARG004 - called as `command` is
        """Answer for a machine with nothing on it, for a plan without a machine."""
        return ["account"]


_put: WeakKeyDictionary[State, set[str]] = WeakKeyDictionary()
"""The accounts whose keys a converge has put there."""


@operation()
def _account(arguments: Mapping[str, Any]) -> Generator[StringCommand, None, None]:
    gaps, put = host.get_fact(AccountGaps, arguments=arguments), _put.setdefault(host.state, set())
    if not host.executing_op_hash and gaps == ["keys"] and arguments["name"] in put:
        # The idempotence check. It is the account's own file, and it may not keep the gate closed.
        host.noop(f"the account {arguments['name']} has changed its keys since they were put there")
    elif gaps:
        yield PROGRAM.command("apply", arguments)
        if host.executing_op_hash:
            put.add(arguments["name"])
    else:
        host.noop(f"the account {arguments['name']} is right")


def system(account: str, *, name: str, home: str = "/nonexistent", **arguments: Any) -> Any:
    """Make the system account `account`, for a service to run as; nobody can log in to it."""
    wanted = _wanted(account, home, "/usr/sbin/nologin", system=True, groups=(), keys=None)
    return _account(name=name, arguments=wanted, **arguments)


def person(
    account: str,
    *,
    name: str,
    keys: Sequence[str] = (),
    groups: Sequence[str] = (),
    shell: str = "/bin/bash",
    **arguments: Any,
) -> Any:
    """Make the account `account`, without a password; `keys` alone may log in over SSH.

    keys: lines of authorized_keys. groups: others that it is in too; a group that is not there is made.
    Raises DataError.
    """
    wrong = next((key for key in keys if not _KEY.fullmatch(key)), None)
    if wrong is not None:
        raise DataError(f"{wrong[:20]!r}… is not a public key of one line. Take the line of a .pub file.")
    if sum(len(key) + 1 for key in keys) > program.KEYS_SIZE:
        raise DataError(f"The keys of {account!r} are more than {program.KEYS_SIZE} bytes. Use fewer keys.")
    if not re.fullmatch(r"/[\w./-]+", shell, re.ASCII):
        raise DataError(f"The shell {shell!r} is not the full path of a program.")
    wanted = _wanted(account, f"/home/{account}", shell, system=False, groups=groups, keys=keys)
    return _account(name=name, arguments=wanted, **arguments)


def _wanted(
    account: str, home: str, shell: str, *, system: bool, groups: Sequence[str], keys: Sequence[str] | None
) -> dict[str, Any]:
    """Make the program's arguments. Raises DataError for a name that no account can have."""
    for name in (account, *groups):
        if not ACCOUNT.fullmatch(name):
            raise DataError(f"{name!r} is not a name for an account: use a-z, 0-9, _ or -, 32 at most.")
    return {
        "name": account,
        "home": home,
        "shell": shell,
        "system": system,
        "groups": list(groups),
        "keys": None if keys is None else list(keys),
    }
