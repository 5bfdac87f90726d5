"""Where the tools run: each in a Debian 12 of its own, over which its installation is a cached layer.

The tree that they work on is a folder of this host's disk, bound in at the same place for all. What a
tool keeps elsewhere (state, locks, caches) goes to a layer of its own, which lasts for one benchmark.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.peers.workload import translate
from tests.lab import host, roots
from tests.lab.clean import HOST_BUNDLE, bundle, registry_files, registry_variables
from tests.lab.image import Chroot, Image, digest
from tests.support import programs
from tests.support.cache import cache_folder

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
INSIDE = Path("/bench")
"""Where a tool sees the benchmark's folder."""
TREE = INSIDE / "tree"
SIZE = "8G"  # sparse


@dataclass(frozen=True)
class Figures:
    """One run. wall, cpu: seconds; peak: MB of the largest process; code: its exit status, None when it
    was ended after the limit; output: what it printed."""

    wall: float
    cpu: float
    peak: float
    code: int | None
    output: str


def image(name: str, packages: str, script: str, lock: str = "") -> Image:
    """Debian 12 with `packages`, in which the shell `script` ran; made when there is none.

    lock: a file that the script finds as /tmp/requirements.lock. Raises LabError.
    """

    def recipe(chroot: Chroot) -> None:
        if packages:
            roots.apt_install(chroot, packages)
        binds = {bundle(): HOST_BUNDLE} | {path.resolve(): str(path) for path in registry_files()}
        inside = replace(chroot, binds={**chroot.binds, **binds})
        inside.write("/tmp/requirements.lock", lock)  # noqa: S108 - in the layer
        inside.run(f"set -e\n{script}", timeout=1200, env=registry_variables())

    return roots.with_apt(roots.bare(), f"peer-{name}-{digest(packages, script, lock)}", recipe)


@dataclass(frozen=True)
class Stage:
    """A tool's root in the benchmark's `folder`, with its own upper layer."""

    name: str
    image: Image
    folder: Path

    def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str], given: str = "", limit: int = 600
    ) -> Figures:
        """Run and measure a command. given: its stdin; limit: seconds. Raises LabError when the command
        cannot be started; that it failed is in its figures."""
        (self.folder / "given").write_text(given)
        command = ["/usr/bin/python3", "-I", "-S", INSIDE / "measure.py", limit]
        words = [*command, INSIDE / "output", INSIDE / "given", *argv]
        done = self._chroot().run([str(word) for word in words], env=dict(environment), timeout=limit + 60)
        return Figures(**json.loads(done.stdout), output=(self.folder / "output").read_text(errors="replace"))

    def settle(self) -> None:
        """What a machine has that runs: it knows its own name, and its Python is compiled."""
        hosts = 'echo "127.0.0.1 localhost $(hostname)" > /etc/hosts'
        self._chroot().run(
            f"{hosts}; python3 -m compileall -q {INSIDE}/engine {INSIDE}/policies", timeout=120
        )

    def say(self, command: str, environment: Mapping[str, str]) -> str:
        """What a shell command in this root says, in a line: two lines of it at most."""
        output = self._chroot().run(command, env=dict(environment), check=False).stdout
        return ", ".join(output.split("\n")[:2]).strip(", ")

    def _chroot(self) -> Chroot:
        own = self.folder / "roots" / self.name
        for name in ("upper", "work"):
            (own / name).mkdir(parents=True, exist_ok=True)
        writable = {self.folder: str(INSIDE)}
        return Chroot(self.image.lowerdir, own / "upper", own / "work", writable=writable)


@contextlib.contextmanager
def bench() -> Iterator[Path]:
    """The benchmark's folder, furnished: policies, the program that measures, and our engine as it is now.

    It is a file system of its own, new each time: on a large one that is in use, making a thousand files
    costs up to ten times as much, and differently from one minute to the next. Raises LabError.
    """
    runs = cache_folder() / "runs"
    for left in runs.glob("peers-*"):
        if not host.alive(int(left.name.removeprefix("peers-"))):
            _take_down(left)
    place = runs / f"peers-{os.getpid()}"
    folder = place / "bench"
    folder.mkdir(parents=True)
    try:
        programs.run(["truncate", "-s", SIZE, place / "disk.ext4"])
        programs.run(["mkfs.ext4", "-q", "-F", place / "disk.ext4"])
        programs.run(["mount", "-o", "loop", place / "disk.ext4", folder])
        _furnish(folder)
        yield folder
    finally:
        _take_down(place)


def _take_down(place: Path) -> None:
    host.unmount_under(place)
    shutil.rmtree(place)


def _furnish(folder: Path) -> None:
    shutil.copy(HERE / "measure.py", folder)
    shutil.copytree(HERE / "policies", folder / "policies")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "bootstrap", folder / "engine", ignore=ignore)
    policies = folder / "policies"
    shutil.copytree(policies / "ops", policies / "empty")
    (policies / "empty/deploy.py").write_text('"""Nothing to do."""\n')
    translate(policies)
