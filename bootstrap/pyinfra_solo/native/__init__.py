"""pyinfra's looks at this machine and its plain commands, done in the process instead of by a shell.

The rule of everything here: the value, the effect and the failure are the stock way's, or the answer
is UNKNOWN, and the ordinary road through a shell is taken. Slow, never wrong.

`files`, `server`, `deb` and `systemd` answer the facts of pyinfra's modules of those names.
"""

from enum import Enum
from typing import Final


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "not answered here"


UNKNOWN: Final = Unknown.UNKNOWN
"""Take the ordinary road."""
