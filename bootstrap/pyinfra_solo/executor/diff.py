"""Preview an operation's command for a plan: a diff of a file, or the command line."""

from difflib import unified_diff
from pathlib import Path
from typing import Any

from pyinfra.api.command import FileUploadCommand, StringCommand
from pyinfra.api.util import get_file_io

from pyinfra_solo.operations.script import ProgramCommand
from pyinfra_solo.operations.validated import UNVALIDATED


def preview(command: Any, *, blank: bool) -> list[str]:
    """Return a plan's lines for one command. blank: compare with a machine that has no files."""
    if isinstance(command, FileUploadCommand):
        return _diff(command, blank=blank)
    if isinstance(command, ProgramCommand):
        return [f"$ {command.shown}"]
    if isinstance(command, StringCommand):
        return [
            f"$ {line}" if number == 0 else f"  {line}"
            for number, line in enumerate(command.get_masked_value().splitlines())
        ]
    return [str(command)]


def _diff(command: FileUploadCommand, *, blank: bool) -> list[str]:
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
    return [
        line.rstrip("\n")
        for line in unified_diff(
            (old or b"").decode(errors="replace").splitlines(),
            new.decode(errors="replace").splitlines(),
            str(target) if old is not None else "/dev/null",
            str(target),
            lineterm="",
        )
    ]
