"""Put a file in its place when its own program finds it good.

validated apply new=PATH old=PATH validate=COMMAND
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyinfra_solo.operations.prelude import ProgramError, capture, main, sync


def apply(new: str, old: str, validate: str) -> None:
    """Rename `new` to `old` when the shell command `validate` ends with status 0.

    The command finds `new` as `$FILE`. Else `new` is removed, and `old` is what it was.
    """
    done = capture("sh", "-c", validate, FILE=new)
    if done.status:
        Path(new).unlink(missing_ok=True)
        sys.stderr.write(f"{done.text.rstrip()}\n")
        raise ProgramError(f"{new} was refused; {old} is unchanged. Correct the template or its values.")
    sync(Path(new))
    Path(new).replace(old)
    sync(Path(old).parent)


if __name__ == "__main__":
    main(apply=apply)
