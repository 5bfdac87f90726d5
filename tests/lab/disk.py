"""Disks: an overlay whose upper layer is a plain folder, or a file system that can lose power."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.lab import host
from tests.lab.image import Image
from tests.support import programs

Kind = Literal["dir", "ext4"]
SIZE = "8G"  # sparse


@dataclass
class Disk:
    """`folder` holds all of it; `root` is the machine's root folder while it is mounted."""

    folder: Path
    image: Image
    kind: Kind = "dir"

    @property
    def root(self) -> Path:
        """The mount point of the machine's root."""
        return self.folder / "root"

    @property
    def _store(self) -> Path:
        """The folder that holds the upper layer."""
        return self.folder / "store"

    @property
    def _file(self) -> Path:
        return self.folder / "disk.ext4"

    def make(self) -> None:
        """Make an empty disk. An ext4 one is sparse and takes about 0.1 s."""
        for folder in (self.root, self._store):
            folder.mkdir(parents=True)
        if self.kind == "ext4":
            programs.run(["truncate", "-s", SIZE, self._file])
            options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
            programs.run(["mkfs.ext4", "-q", "-F", "-E", options, self._file])

    def mount(self) -> None:
        """Mount it, unless it is; a disk that lost power replays its journal here."""
        if self.root.is_mount():
            return
        if self.kind == "ext4" and not self._store.is_mount():
            programs.wait_for(f"{self._file} to be let go since its power was cut", self._mount_store, 15)
        for name in ("upper", "work"):
            (self._store / name).mkdir(exist_ok=True)
        layers = f"lowerdir={self.image.lowerdir},upperdir={self._store / 'upper'}"
        options = f"{layers},workdir={self._store / 'work'}"
        programs.run(["mount", "-t", "overlay", "overlay", "-o", options, self.root])

    def _mount_store(self) -> bool:
        """Mount it. Return False while a namespace that has just ended still holds it: then it is the same dead
        file system. The kernel releases a namespace's mounts some time after its last process."""
        programs.run(["mount", "-o", "loop", self._file, self._store])
        if "shutdown" not in host.mount_options(self._store):
            return True
        programs.run(["umount", self._store])
        return False

    def unmount(self) -> None:
        """Unmount it; its content stays."""
        host.unmount_under(self.root)
        host.unmount_under(self._store)

    def pull_the_plug(self) -> None:
        """Let nothing reach an ext4 disk from now on. Raises LabError for a plain folder."""
        if self.kind != "ext4":
            raise programs.LabError('only a machine with disk="ext4" can lose power')
        host.pull_the_plug(self._store)

    def copy_to(self, other: Disk) -> None:
        """Copy its content to a new disk of the same kind; the caller stops all writers."""
        if self.kind == "ext4":
            for folder in (other.root, other._store):
                folder.mkdir(parents=True)
            mounted = self._store.is_mount()
            if mounted:
                programs.run(["fsfreeze", "--freeze", self._store])
            try:
                programs.run(["cp", "--sparse=always", self._file, other._file], timeout=300)
            finally:
                if mounted:
                    programs.run(["fsfreeze", "--unfreeze", self._store])
            return
        other.make()
        upper = self._store / "upper"
        if upper.exists():
            programs.run(["cp", "-a", upper, other._store], timeout=300)
