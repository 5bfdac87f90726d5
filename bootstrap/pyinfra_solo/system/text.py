"""Text from outside, made fit for messages: escapes, errors, URLs, and the form of names."""

import json
import re
import traceback
from pathlib import Path

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
"""A role, stage, app or service. Such names become paths, unit names and shell words."""
ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
"""A user or group, by useradd(8), CAVEATS."""
COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
"""A full commit hash."""

_USER_INFO = re.compile(r"(?<=://)[^/]*@|(?<=://)[^/@\[\]]*:(?!\d*(?:/|$)).*@|^[^/@]*:[^/]*@", re.DOTALL)
"""Before the last @ of the authority: a password may hold an @. Also where a / stands in the password, for
which a URL has %2F: no port begins so. Or `user:password@` without a scheme."""


def printable(text: str) -> str:
    """Replace control and format characters, but the tab, by their Python escapes.

    That covers terminal escapes, C1 controls, line separators and bidi overrides (Unicode categories
    Cc, Cf, Cs, Co, Cn, Zl, Zp): tags and outputs hold anything, and this goes to consoles.
    """
    return "".join(
        character if character.isprintable() or character == "\t" else repr(character)[1:-1]
        for character in text
    )


def escaped_json(text: bytes) -> bytes:
    """Escape in JSON what `printable` replaces (RFC 8259, 7): it then means the same, and shows no control."""
    if text.isascii() and b"\x7f" not in text:  # its strings have no other raw control character
        return text
    return "".join(
        character if character.isprintable() or character == "\n" else json.dumps(character)[1:-1]
        for character in text.decode(errors="backslashreplace")
    ).encode()


def one_line(text: str) -> str:
    """Collapse each run of white space to one space, and remove it at both ends."""
    return " ".join(text.split())


def in_words(error: BaseException) -> str:
    """Describe an error in one line; a syntax error with its file and line, which may be elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
        return one_line(f"{error.msg} ({Path(error.filename).name}:{error.lineno})")
    return one_line(str(error)) or type(error).__name__


def place_in(root: Path, error: BaseException) -> str:
    """Return ` (FILE:LINE)` of the error's last frame in the tree `root`, or in a template; "" without one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if frame.filename == "<template>":
            return f" (line {frame.lineno} of the template)"
        if path.is_relative_to(root) and "bootstrap" not in path.relative_to(root).parts:
            return f" ({path.relative_to(root)}:{frame.lineno})"
    return ""


def explained(error: BaseException, root: Path) -> str:
    """Describe what code of the tree `root` has raised: kind, text, file and line."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r}){place_in(root, error)}"
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_relative_to(root):
        return one_line(f"{error.msg} ({Path(error.filename).relative_to(root)}:{error.lineno})")
    kind = "" if isinstance(error, SyntaxError) else f"{type(error).__name__}: "
    return f"{kind}{in_words(error)}{place_in(root, error)}"


def without_password(url: str) -> str:
    """Remove user and password from a URL, for messages. `user@host:path`, as ssh has it, stays."""
    return _USER_INFO.sub("", url)
