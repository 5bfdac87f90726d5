"""A control group per machine, in the unified hierarchy and in systemd's own where there is one.

With a group of its own a machine's init cannot stop its neighbours' services, and all of a
machine can be frozen or killed at once, whatever it forked.
"""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.support import programs

PARENT = "pyinfra-solo-lab"


def unified() -> Path:
    """Return the mount point of cgroup2: /sys/fs/cgroup, or its `unified` on a hybrid host."""
    root = Path("/sys/fs/cgroup")
    return root / "unified" if (root / "unified").is_dir() else root


def _hierarchies() -> list[Path]:
    named = Path("/sys/fs/cgroup/systemd")
    return [unified(), named] if named.is_dir() else [unified()]


@dataclass(frozen=True)
class Cgroup:
    """The group called `name`; nothing exists until `make`."""

    name: str

    def _folders(self) -> list[Path]:
        return [hierarchy / PARENT / self.name for hierarchy in _hierarchies()]

    def make(self) -> None:
        """Create it, empty."""
        for folder in self._folders():
            folder.mkdir(parents=True, exist_ok=True)

    def enter_script(self) -> str:
        """Shell text that puts the shell which runs it into the group."""
        files = (shlex.quote(str(folder / "cgroup.procs")) for folder in self._folders())
        return "".join(f"echo $$ > {file}; " for file in files)

    def kill(self, timeout: float = 10) -> None:
        """SIGKILL every process in it and below; LabError when one is left after `timeout` s."""
        folder = self._folders()[0]
        if folder.exists():
            self.freeze(False)
            (folder / "cgroup.kill").write_text("1")
            programs.wait_for(f"{self.name} to end", lambda: not self._populated(), timeout, 0.01)

    def _populated(self) -> bool:
        return "populated 1" in (self._folders()[0] / "cgroup.events").read_text()

    def freeze(self, frozen: bool, timeout: float = 10) -> None:
        """Stop every process in it where it stands, or let them go on."""
        folder = self._folders()[0]
        if not folder.exists():
            return
        (folder / "cgroup.freeze").write_text("1" if frozen else "0")
        events = folder / "cgroup.events"
        wanted = f"frozen {int(frozen)}"
        programs.wait_for(f"{self.name}: {wanted}", lambda: wanted in events.read_text(), timeout, 0.01)

    def remove(self) -> None:
        """Remove the empty group and those that the machine made in it."""
        for folder in self._folders():
            if folder.exists():
                below = sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True)
                for child in [*below, folder]:
                    with contextlib.suppress(OSError):
                        child.rmdir()


def kill_all(prefix: str) -> None:
    """Kill and remove every group whose name starts with `prefix`: what a killed run left."""
    parent = unified() / PARENT
    for folder in sorted(parent.glob(f"{prefix}*")) if parent.exists() else []:
        group = Cgroup(folder.name)
        group.kill()
        group.remove()
