"""The folder `/srv/<app>`: its releases, and the links that name two of them. Standard library only.

A release counts only with its marker, which holds its commit and is written after all else.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyinfra_solo.errors import LockedError
from pyinfra_solo.system import durable
from pyinfra_solo.system.lock import flock
from pyinfra_solo.system.text import COMMIT

MARKER = ".pyinfra-solo-release"


class Releases:
    """The releases below `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.folder = base / "releases"

    def of(self, sha: str) -> Path:
        return self.folder / sha[:12]

    def commit(self, release: Path | None) -> str:
        """Return the commit of a complete release, or ''."""
        with suppress(OSError, ValueError):
            found = (release / MARKER).read_text().partition("\n")[0] if release else ""
            return found if COMMIT.fullmatch(found) else ""
        return ""

    def named(self, link: str) -> Path | None:
        """Return the release that the link `current` or `previous` names, complete or not."""
        try:
            target = (self.base / link).readlink()
        except OSError:
            return None
        return self.base / target if target.parts[0] == "releases" else None

    @property
    def current(self) -> str:
        """The commit of the complete release that `current` names, or ''."""
        return self.commit(self.named("current"))

    def unfinished(self) -> list[Path]:
        """List what killed runs left."""
        return [*durable.unfinished(self.base), *durable.unfinished(self.folder)]

    def make_folders(self, owner: pwd.struct_passwd) -> None:
        """Make what is missing. `shared` gets its owner before its name: the app may write there."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        shared = self.base / "shared"
        if not shared.is_dir():
            building = self.base / f"{durable.BUILDING}shared-{os.getpid()}"
            building.mkdir(mode=0o750)
            os.chown(building, owner.pw_uid, owner.pw_gid)
            building.chmod(0o750)
            building.rename(shared)
            durable.sync_folder(self.base)

    def publish(self, building: Path, sha: str) -> None:
        durable.publish(building, self.of(sha), MARKER, f"{sha}\n")

    def switch(self, sha: str) -> bool:
        """Point `current` at the release of `sha`, and `previous` at what it was. Return whether it changed."""
        was, wanted = self.named("current"), self.of(sha)
        if was == wanted:
            return False
        if was and self.commit(was):
            durable.link(self.base / "previous", f"releases/{was.name}")
        durable.link(self.base / "current", f"releases/{wanted.name}")
        return True

    def prune(self, keep: int) -> None:
        """Remove all but the newest releases, `current` and `previous`."""
        markers = sorted(self.folder.glob(f"*/{MARKER}"), key=lambda path: path.stat().st_mtime, reverse=True)
        used = (self.named("current"), self.named("previous"))
        for marker in markers[keep:]:
            if marker.parent not in used:
                durable.discard(marker.parent)


@contextmanager
def locked(path: Path, until: float) -> Iterator[int]:
    """Hold the lock file `path`. until: on the monotonic clock. Raises LockedError.

    Mode 0600: any open descriptor, even a read-only one, is enough for flock(2) to hold up every run.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if not flock(descriptor, until):
            raise LockedError(f"another run is making a release: it holds {path}. End it, or wait for it.")
        yield descriptor
    finally:
        os.close(descriptor)
