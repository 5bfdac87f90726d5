"""Put a file in its place when its own program finds it good.

validated apply new=PATH old=PATH validate=COMMAND
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyinfra_solo.operations.prelude import ProgramError, capture, main, sync

_LINES, _LONGEST = 3, 300


def apply(new: str, old: str, validate: str) -> None:
    """Rename `new` to `old` when the shell command `validate` ends with status 0.

    The command finds `new` as `$FILE`. Else `new` is removed, and `old` is what it was.
    """
    done = capture("sh", "-c", validate, FILE=new)
    if done.status:
        Path(new).unlink(missing_ok=True)
        text = done.text.replace(new, old)
        sys.stderr.write(f"{text.rstrip()}\n")
        raise ProgramError(
            f"The new {old} was refused: {_reason(text, done.status)}. {old} is unchanged."
            " Correct the template or its values."
        )
    sync(Path(new))
    Path(new).replace(old)
    sync(Path(old).parent)


def _reason(text: str, status: int) -> str:
    """Join the first lines: programs say last that the test has failed, and before that why.

    A line of more than _LONGEST characters is left out, as a cut could leave half a secret.
    """
    lines = dict.fromkeys(" ".join(line.split()) for line in text.splitlines())
    shown = [line for line in lines if 0 < len(line) <= _LONGEST][:_LINES]
    return "; ".join(shown).rstrip(".") or f"its program ended with status {status}"


if __name__ == "__main__":
    main(apply=apply)
