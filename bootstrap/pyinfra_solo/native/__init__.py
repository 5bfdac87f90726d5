"""Answer pyinfra's facts and run its plain commands in this process, without a shell.

Contract: return exactly what pyinfra's fact would return, or UNKNOWN. UNKNOWN falls back to pyinfra's
shell command.

`files`, `server`, `deb` and `systemd` have the facts of pyinfra's modules of those names, as far as
pyinfra's operations in the shipped roles ask them.
"""

from enum import Enum
from typing import Final


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "no native answer"


UNKNOWN: Final = Unknown.UNKNOWN
"""No native answer: fall back to pyinfra's shell command."""
