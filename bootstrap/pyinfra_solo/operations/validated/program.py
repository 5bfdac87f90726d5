"""Put a file in its place when its own program finds it good.

validated apply new=PATH old=PATH validate=COMMAND mode=OCTAL user:=NAME
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from pathlib import Path

from pyinfra_solo.operations.prelude import ProgramError, capture, main, sync

_LINES, _LONGEST = 3, 300


def apply(new: str, old: str, validate: str, mode: str = "600", user: str | None = None) -> None:
    """Rename `new` to `old` when the shell command `validate` ends with status 0.

    The command finds `new` as `$FILE`. Else `new` is removed, and `old` is what it was. mode, user: what the
    file gets when it is valid; until then it must be this account's, so that no other can change it.
    """
    descriptor = os.open(new, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check_own(new, descriptor)
        _validate(new, old, validate)
        _check_own(new, descriptor)
        os.fchown(descriptor, -1 if user is None else _uid(user), -1)
        os.fchmod(descriptor, int(mode, 8))
        os.fsync(descriptor)
        Path(new).replace(old)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    sync(Path(old).parent)


def _validate(new: str, old: str, command: str) -> None:
    done = capture("sh", "-c", command, FILE=new)
    if done.status:
        text = done.text.replace(new, old)
        sys.stderr.write(f"{text.rstrip()}\n")
        raise ProgramError(
            f"The new {old} was refused: {_reason(text, done.status)}. {old} is unchanged."
            " Correct the template or its values."
        )


def _check_own(path: str, descriptor: int) -> None:
    """Raise ProgramError unless the open file still has the name, and this account alone may write it."""
    about, named = os.fstat(descriptor), os.lstat(path)
    others_write = about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    is_own = stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and about.st_nlink == 1
    if not is_own or others_write or not os.path.samestat(about, named):
        raise ProgramError(
            f"{path} is refused: another account can change it or has exchanged it while it is validated."
            f" Let root alone write {Path(path).parent}."
        )


def _uid(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        if user.isdigit():
            return int(user)
        raise ProgramError(f"No account has the name {user}. Correct `user` of validated.template.") from None


def _reason(text: str, status: int) -> str:
    """Join the first lines: programs say last that the test has failed, and before that why.

    A line of more than _LONGEST characters is left out, as a cut could leave half a secret.
    """
    lines = dict.fromkeys(" ".join(line.split()) for line in text.splitlines())
    shown = [line for line in lines if 0 < len(line) <= _LONGEST][:_LINES]
    return "; ".join(shown).rstrip(".") or f"its program ended with status {status}"


if __name__ == "__main__":
    main(apply=apply)
