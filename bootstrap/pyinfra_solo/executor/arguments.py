"""Interpret pyinfra's global arguments of one command: its account, folder, and success."""

import errno
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from pwd import getpwnam
from typing import Any

_OTHER_ACCOUNT = (
    "_sudo",
    "_su_user",
    "_doas",
    "_dzdo",
    "_use_sudo_login",
    "_use_su_login",
    "_preserve_sudo_env",
)


def is_this_account(arguments: Mapping[str, Any]) -> bool:
    """Tell whether these global arguments name no account but this process's; root may become root."""
    tools = [tool for tool in ("_sudo", "_doas", "_dzdo") if arguments.get(tool)]
    accounts = {arguments.get(f"{tool}_user") or "root" for tool in tools}
    accounts |= {arguments["_su_user"]} if arguments.get("_su_user") else set()
    return not accounts or (os.geteuid() == 0 and all(map(_is_root, accounts)))


def _is_root(account: str) -> bool:
    return account == "root" or uid_of(account) == 0


def runs_as_this_process(arguments: Mapping[str, Any]) -> bool:
    """Tell whether these global arguments leave the command in this process's environment.

    That is its account, folder and variables, with /bin/sh, no stdin, and 0 for success.
    """
    return (
        not any(map(arguments.get, _CHANGES_PROCESS))
        and arguments.get("_shell_executable") in _SHELLS
        and arguments.get("_success_exit_codes") in SUCCESS
    )


_CHANGES_PROCESS = (*_OTHER_ACCOUNT, "_env", "_chdir", "_stdin")
_SHELLS = (None, "sh", "/bin/sh")
SUCCESS = (None, [0])


def is_among(status: int | None, codes: Collection[int]) -> bool:
    """Tell whether an exit status is one of `codes`, which name a signal as -N, or as 128 + N (sh(1)).

    Which of the two pyinfra gets depends on the shell that is /bin/sh.
    """
    if status is None:
        return False
    return status in codes or ((status < 0 or status > 128) and 128 - status in codes)


def account_of(arguments: Mapping[str, Any]) -> str | None:
    """Return the account that runs the command, the last of pyinfra's text; None is this process's own."""
    for switch in ("_su", "_sudo", "_dzdo", "_doas"):
        user = arguments.get(f"{switch}_user")
        if user if switch == "_su" else arguments.get(switch):
            return user or "root"
    return None


NOBODY = -1


def uid_of(account: str | None) -> int | None:
    """Return the account's id; None for this process's own and for root, which read what this process has.

    NOBODY: there is no such account, as its tool will say, or this process cannot give it a file.
    """
    if account in (None, "root"):
        return None
    with suppress(KeyError, ValueError):
        if os.geteuid() == 0:
            return int(account[1:]) if account.startswith("#") else getpwnam(account).pw_uid
    return NOBODY


def below(folder: str | None, path: str) -> str:
    """Return the path that cp(1) would write to after `cd folder`. Raises OSError without that folder."""
    if not folder:
        return path
    folder = os.path.abspath(folder)  # noqa: PTH100 - cd(1), too, takes `..` from the text, not from the disk
    if not stat.S_ISDIR(os.stat(folder).st_mode):  # noqa: PTH116
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    return os.path.join(folder, path)  # noqa: PTH118 - a Path would drop a last slash
