"""Configuration files that their own program validates before they replace the old ones."""

import hashlib
import traceback
from collections.abc import Generator
from io import StringIO
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.util import get_template
from pyinfra.facts.files import File, Sha1File
from pyinfra.operations import files
from pyinfra.operations.util.files import ensure_mode_int

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations.script import Program
from pyinfra_solo.operations.validated import program

UNVALIDATED = ".pyinfra-solo-new"
"""End of a file's name until it is validated."""
PROGRAM = Program(program)
_READ = 0o755
"""Rights that a file may have until it is validated: nobody else can write it."""


@operation()
def template(
    src: str,
    dest: str,
    validate: str,
    mode: str = "644",
    user: str | None = None,
    group: str | None = None,
    **values: Any,
) -> Generator[StringCommand, None, None]:
    """Put the template `src`, filled with `values`, at `dest`, when its program finds the result good.

    src: a Jinja2 template, from the repository's root. validate: a shell command that ends with
    status 0 when the file `$FILE` is good; until it does, `dest` is what it was, and `$FILE` belongs to the
    account that runs the operation and has no rights to write for others. mode: octal digits.
    user, group: None leaves them alone while the rest is right; a new file is root's. The switch is a
    rename within the folder of `dest`, after the contents are on disk. Raises DataError.
    """
    text = rendered(Path(state.cwd or ".") / src, values)
    same = host.get_fact(Sha1File, path=dest) == hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - no protection, a comparison
    about: Any = same and host.get_fact(File, path=dest)
    wanted = {"mode": ensure_mode_int(mode), "user": user, "group": group}
    if about and all(value in (None, about[key]) for key, value in wanted.items()):
        host.noop(f"{dest} is as its template says")
        return
    new, until_valid = f"{dest}{UNVALIDATED}", f"{int(mode, 8) & _READ:o}"
    yield StringCommand("rm -f", QuoteString(new))
    yield from files.put._inner(src=StringIO(text), dest=new, mode=until_valid, group=group)
    yield PROGRAM.command(
        "apply", {"new": new, "old": dest, "validate": validate, "mode": mode, "user": user}
    )


def rendered(path: Path, values: dict[str, Any]) -> str:
    """Fill a template. Raises DataError, which names the template."""
    try:
        return str(get_template(str(path)).render(values))
    except (OSError, TemplateError) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == "<template>"
        ]
        place = f" (line {lines[-1]})" if lines else ""
        raise DataError(
            f"The template {path.name} cannot be filled: {str(error).replace(f'{state.cwd}/', '').rstrip('.')}{place}. "
            "Correct it and commit."
        ) from error
