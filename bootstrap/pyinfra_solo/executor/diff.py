"""Preview an operation's commands for a plan: a diff of a file, or the command line."""

import re
import shlex
import stat
from collections.abc import Callable, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

from pyinfra.api.command import FileUploadCommand, StringCommand
from pyinfra.api.util import get_file_io

from pyinfra_solo.operations.script import ProgramCommand
from pyinfra_solo.operations.validated import UNVALIDATED

_CHMOD = re.compile(r"chmod (?:-h )?([0-7]{3,4}) (.+)")


def preview(
    commands: Sequence[Any], *, blank: bool, holds_secret: Callable[[str], bool] = lambda _text: False
) -> list[str]:
    """Return a plan's lines for an operation's commands.

    blank: compare with a machine that has no files. holds_secret: finds a role's Secret in a text. The
    contents of a file that holds one, or that other accounts may not read, are not shown: neither the new
    ones nor the old ones, which may hold an older secret.
    """
    private = {path for command in commands if (path := _made_private(command))}
    return [
        line
        for command in commands
        for line in _preview(command, blank=blank, private=private, holds_secret=holds_secret)
    ]


def _preview(
    command: Any, *, blank: bool, private: set[str], holds_secret: Callable[[str], bool]
) -> list[str]:
    if isinstance(command, FileUploadCommand):
        return _diff(command, blank=blank, is_private=command.dest in private, holds_secret=holds_secret)
    if isinstance(command, ProgramCommand):
        return [f"$ {command.shown}"]
    if isinstance(command, StringCommand):
        return [
            f"$ {line}" if number == 0 else f"  {line}"
            for number, line in enumerate(command.get_masked_value().splitlines())
        ]
    return [str(command)]


def _made_private(command: Any) -> str | None:
    """Return the path that this command of pyinfra makes unreadable for other accounts."""
    if not isinstance(command, StringCommand) or isinstance(command, ProgramCommand):
        return None
    found = _CHMOD.fullmatch(command.get_raw_value())
    return shlex.split(found[2])[0] if found and not int(found[1], 8) & stat.S_IROTH else None


def _diff(
    command: FileUploadCommand, *, blank: bool, is_private: bool, holds_secret: Callable[[str], bool]
) -> list[str]:
    with get_file_io(command.src) as opened:
        data = opened.read()
    new = data.encode() if isinstance(data, str) else data
    target = Path(command.dest.removesuffix(UNVALIDATED))
    try:
        old = None if blank else target.read_bytes()
    except OSError:
        old = None
    if b"\0" in new or b"\0" in (old or b""):
        return [f"Binary file {target} differs"]
    before, after = ((old or b"").decode(errors="replace"), new.decode(errors="replace"))
    lines = [
        line.rstrip("\n")
        for line in unified_diff(
            before.splitlines(),
            after.splitlines(),
            str(target) if old is not None else "/dev/null",
            str(target),
            lineterm="",
        )
    ]
    if holds_secret(before) or holds_secret(after):
        return _counted(lines, target, "it holds a secret")
    # A blank plan reads nothing of a machine: who may read the ops repo may read its lines.
    if not blank and (is_private or (old is not None and not _others_may_read(target))):
        return _counted(lines, target, "other accounts may not read it")
    return lines


def _counted(lines: Sequence[str], target: Path, reason: str) -> list[str]:
    added, removed = (sum(line.startswith(sign) for line in lines[2:]) for sign in "+-")
    return [f"{target} differs by +{added} -{removed} lines (not shown: {reason})"]


def _others_may_read(path: Path) -> bool:
    """Tell whether any account may read the file: by its mode, and by each folder's above it."""
    real = path.resolve()
    folders = all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
    return folders and bool(real.stat().st_mode & stat.S_IROTH)
