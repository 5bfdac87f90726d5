"""Record releases that are kept although another one is wanted: `/run/pyinfra-solo/kept/<app>.json`.

The operation `release` writes and removes these files, and `status` reads them.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pyinfra_solo.system import durable


@dataclass(frozen=True)
class Kept:
    """A release that stays. current: its commit. wanted: a commit, or a ref whose commit is unknown."""

    app: str
    current: str
    wanted: str
    reason: str

    def __str__(self) -> str:
        wanted = self.wanted[:12] if re.fullmatch("[0-9a-f]{40}", self.wanted) else self.wanted
        return f"{self.app}: kept at {self.current[:12]} instead of {wanted}: {self.reason}"


def record(kept: Kept, folder: Path) -> None:
    """Write the record of `kept.app` in `folder`, for root alone: its reason is git's text. Raises OSError."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    durable.write(folder / f"{kept.app}.json", json.dumps(asdict(kept)) + "\n", 0o600)


def clear(app: str, folder: Path) -> None:
    """Remove the record of `app`, if there is one. Raises OSError."""
    (folder / f"{app}.json").unlink(missing_ok=True)


def read(folder: Path) -> list[Kept]:
    """Read all records in `folder`, by the name of the app; skip files that are not records."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            found.append(Kept(**json.loads(path.read_bytes())))
    return found
