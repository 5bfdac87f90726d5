"""A file that its own program has read and found good, before it takes the place of the old one."""

import hashlib
from collections.abc import Generator
from io import StringIO
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.util import get_template
from pyinfra.facts.files import Sha1File
from pyinfra.operations import files

from pyinfra_solo.errors import DataError

NEW = ".pyinfra-solo-new"
"""What a file's name ends with until it is verified."""

_SWAP = """
set -eu
new=$1 old=$2 verify=$3
if ! said=$(FILE=$new sh -c "$verify" 2>&1); then
    printf '%s\\n%s was refused; %s is unchanged. Correct the template or its values.\\n' "$said" "$new" "$old" >&2
    rm -f "$new"
    exit 1
fi
sync "$new" 2>/dev/null || sync
mv -fT "$new" "$old"
sync "${old%/*}" 2>/dev/null || sync
"""


@operation()
def template(
    src: str, dest: str, verify: str, mode: str = "644", **values: Any
) -> Generator[StringCommand, None, None]:
    """The file `dest` holds the template `src`, filled with `values`.

    src: a Jinja2 template, from the repository's root. verify: a shell command that ends with
    status 0 when the file `$FILE` is good; until it does, `dest` is what it was. The switch is a
    rename within the folder of `dest`, after the contents are on disk.
    """
    text = rendered(Path(state.cwd or ".") / src, values)
    if host.get_fact(Sha1File, path=dest) == hashlib.sha1(text.encode()).hexdigest():  # noqa: S324 - what pyinfra's facts and their native answers give; nothing is trusted by it
        host.noop(f"{dest} is as its template says")
        return
    new = f"{dest}{NEW}"
    yield from files.put._inner(src=StringIO(text), dest=new, mode=mode)
    yield StringCommand(
        "sh", "-c", QuoteString(_SWAP), "verified", QuoteString(new), QuoteString(dest), QuoteString(verify)
    )


def rendered(path: Path, values: dict[str, Any]) -> str:
    """The template's text. Raises DataError that names the template."""
    try:
        return str(get_template(str(path)).render(values))
    except (OSError, TemplateError) as error:
        raise DataError(
            f"The template {path.name} cannot be filled: {str(error).rstrip('.')}. Correct it and commit."
        ) from error
