"""Shell programs that run on the machine which is converged, be it this one or one over SSH.

One program is one command: one tree of processes, that a kill of its group ends whole.
"""

from collections.abc import Mapping
from pathlib import Path

from pyinfra.api import QuoteString, StringCommand

_FOLDER = Path(__file__).parent


def run(name: str, *words: str, environment: Mapping[str, str] | None = None) -> StringCommand:
    """The program `name`.sh with `words` as its arguments. They show in `ps`: no secret."""
    text = next(_FOLDER.glob(f"*/{name}.sh")).read_text()
    variables = [QuoteString(f"{key}={value}") for key, value in (environment or {}).items()]
    head = ["env", *variables] if variables else []
    return StringCommand(*head, "sh", "-c", QuoteString(text), name, *map(QuoteString, words))


def failure(message: str) -> StringCommand:
    """A command that fails and says why: what an operation yields when it cannot be done.

    An exception out of an operation ends pyinfra's run as an internal error (pyinfra 3.10).
    """
    return StringCommand("sh", "-c", QuoteString('echo "$1" >&2; exit 1'), "sh", QuoteString(message))


def pairs(lines: list[str]) -> dict[str, str]:
    """`key=value` lines, as the programs' `look` prints them."""
    return dict(line.split("=", 1) for line in lines if "=" in line)
