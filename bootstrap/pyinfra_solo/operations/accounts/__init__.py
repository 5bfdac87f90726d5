"""Accounts: one look each. pyinfra's server.user asks about every user of the machine.

The keys that may log in are exactly those given: a key that is taken out of the data is taken off
the machine.
"""

import re
from collections.abc import Generator, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations import native_facts as roles
from pyinfra_solo.operations import script

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)  # useradd(8), CAVEATS
_KEY = re.compile(r"[ -~]*\b(ssh|ecdsa|sk)-[ -~]+ [A-Za-z0-9+/=]{16,}( [ -~]*)?", re.ASCII)


class AccountGaps(FactBase[list[str]]):
    """What the account lacks: account, shell, groups, home, keys; nothing when it is right."""

    default = list

    @staticmethod
    def blank(words: Sequence[str]) -> list[str]:  # noqa: ARG004 - asked as `command` is
        """On a machine with nothing on it, for a plan without a machine."""
        return ["account"]

    native = staticmethod(roles.account_gaps)

    def command(self, words: Sequence[str]) -> StringCommand:
        return script.run("account", "look", *words)

    def process(self, output: list[str]) -> list[str]:
        return output


@operation()
def _account(words: Sequence[str]) -> Generator[StringCommand, None, None]:
    if gaps := host.get_fact(AccountGaps, words=words):
        yield script.run("account", "apply", *words)
    else:
        host.noop(f"the account {words[0]} is right {gaps}")


def system(account: str, *, name: str, home: str = "/nonexistent", **arguments: Any) -> Any:
    """The system account `account` is there, for a service to run as; nobody can log in to it."""
    words = [_checked(account), home, "/usr/sbin/nologin", "yes", "", "-"]
    return _account(name=name, words=words, **arguments)


def person(
    account: str,
    *,
    name: str,
    keys: Sequence[str] = (),
    groups: Sequence[str] = (),
    shell: str = "/bin/bash",
    **arguments: Any,
) -> Any:
    """The account `account` is there, without a password; `keys` alone may log in over SSH.

    keys: lines of authorized_keys. groups: others that it is in too; a group that is not there is made.
    """
    wrong = next((key for key in keys if not _KEY.fullmatch(key)), None)
    if wrong is not None:
        raise DataError(f"{wrong[:20]!r}… is not a public key of one line. Take the line of a .pub file.")
    if not re.fullmatch(r"/[\w./-]+", shell, re.ASCII):
        raise DataError(f"The shell {shell!r} is not the full path of a program.")
    names = ",".join(_checked(group) for group in groups)
    words = [_checked(account), f"/home/{account}", shell, "no", names, "\n".join(keys)]
    return _account(name=name, words=words, **arguments)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise DataError(f"{name!r} is not a name for an account: use a-z, 0-9, _ or -, 32 at most.")
    return name
