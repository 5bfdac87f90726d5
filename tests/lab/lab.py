"""A lab: a fake cloud and the machines in it, gone without a trace when it is closed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

from tests.lab import cgroup, host, roots
from tests.lab.aws import Aws
from tests.lab.disk import Disk, Kind
from tests.lab.gitserver import GitServer
from tests.lab.health import Health
from tests.lab.image import Image
from tests.lab.imds import Imds
from tests.lab.machine import BootedMachine
from tests.lab.network import Network
from tests.lab.packages import Packages
from tests.support import programs
from tests.support.instance import Instance

RECORDS = Path("/run/pyinfra-solo-lab")


@dataclass
class Lab:
    """Use as a context manager. `folder` is made, and removed with all in it at the end."""

    folder: Path
    machines: dict[str, BootedMachine] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    _checkers: dict[str, list[Health]] = field(default_factory=dict)
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Lab:
        reason = host.missing()
        if reason:
            raise programs.LabError(reason)
        sweep()
        self.folder.mkdir(parents=True, exist_ok=True)
        # Shared, so that what is unmounted here goes from the namespaces of servers too.
        programs.run(["mount", "--bind", self.folder, self.folder])
        programs.run(["mount", "--make-shared", self.folder])
        self.network = Network(self.folder / "network")
        record = RECORDS / f"{self.network.name}.json"
        _write_record(record, self.network.name, self.folder)
        self._closing.callback(record.unlink)
        self._closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._closing.callback(host.unmount_under, self.folder)
        self._closing.callback(self.network.down)
        try:
            self.network.up()
            self.imds = Imds(self.network)
            self._closing.callback(self.imds.stop)
            self.imds.start()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for machine in list(self.machines.values()):
                self.discard(machine)
        finally:
            self._closing.close()

    @cached_property
    def git(self) -> GitServer:
        """The git server, started at its first use."""
        server = GitServer(self.network, self.folder / "git", roots.bare())
        self._closing.callback(server.stop)
        server.start()
        return server

    @cached_property
    def aws(self) -> Aws:
        """moto, started at its first use."""
        server = Aws(self.network, self.folder / "aws")
        self._closing.callback(server.stop)
        server.start()
        return server

    @cached_property
    def packages(self) -> Packages:
        """apt.lab and pypi.lab, started at their first use."""
        server = Packages(self.network)
        self._closing.callback(server.stop)
        server.start()
        return server

    def heal(self) -> None:
        """Undo every fault, and plug in every machine."""
        self.imds.heal()
        if "git" in self.__dict__:
            self.git.heal()
        if "packages" in self.__dict__:
            self.packages.apt_faults.clear()
            self.packages.pypi_faults.clear()
        for machine in self.machines.values():
            machine.plug()

    def machine(
        self,
        name: str,
        root: str | Image = "systemd",
        *,
        disk: Kind = "dir",
        instance: Instance | None = None,
        init: str = "systemd",
    ) -> BootedMachine:
        """Make a machine, off. `root` is a root's name (see roots.py) or an image made over one."""
        image = roots.root(root) if isinstance(root, str) else root
        folder = self.folder / "machines" / name
        storage = Disk(folder / "disk", image, disk)
        storage.make()
        machine = self._add(name, folder, storage, init, instance or Instance())
        machine.write("/etc/hostname", f"{name}\n")
        return machine

    def clone(self, source: BootedMachine, name: str, instance: Instance | None = None) -> BootedMachine:
        """Make a machine, off, with a copy of another's disk: an AMI made from a running machine.

        Its machine-id, host keys and state are the other's; only its address and instance differ.
        """
        folder = self.folder / "machines" / name
        storage = Disk(folder / "disk", source.disk.image, source.disk.kind)
        source.freeze()
        try:
            source.disk.copy_to(storage)
        finally:
            source.thaw()
        return self._add(name, folder, storage, source.init, instance or Instance())

    def _add(self, name: str, folder: Path, disk: Disk, init: str, instance: Instance) -> BootedMachine:
        link = self.network.link(name)
        machine = BootedMachine(name, folder, disk, self.network, link, init)
        self.imds.put(instance, link.address, link.mac)
        self.machines[name], self.instances[name] = machine, instance
        return machine

    def discard(self, machine: BootedMachine) -> None:
        """End a machine and remove all of it; its name may be used again."""
        for checker in self._checkers.pop(machine.name, []):
            checker.stop()
        machine.close()
        shutil.rmtree(machine.folder)
        del self.machines[machine.name], self.instances[machine.name]

    def health(self, machine: BootedMachine, path: str = "/ping.html", *, interval: float = 0.2) -> Health:
        """Start health checks of a machine; they end with it."""
        checker = Health(machine, path, interval=interval)
        self._checkers.setdefault(machine.name, []).append(checker)
        return checker.start()


def _write_record(record: Path, network: str, folder: Path) -> None:
    RECORDS.mkdir(parents=True, exist_ok=True)
    pid = os.getpid()
    text = {"pid": pid, "start": host.started(pid), "network": network, "folder": str(folder)}
    record.write_text(json.dumps(text))


def sweep() -> None:
    """Remove what labs of killed processes left, by their records."""
    for record in RECORDS.glob("*.json") if RECORDS.exists() else ():
        left = json.loads(record.read_text())
        if host.alive(left["pid"], left["start"]):
            continue
        network: str = left["network"]
        cgroup.kill_all(f"{network}.")
        host.unmount_under(Path(left["folder"]))
        for namespace in Path("/run/netns").glob(f"{network}*"):
            _end_processes_in(namespace)
            programs.run(["ip", "netns", "delete", namespace.name], check=False)
        shutil.rmtree(left["folder"], ignore_errors=True)
        record.unlink(missing_ok=True)


def _end_processes_in(namespace: Path) -> None:
    pids = programs.run(["ip", "netns", "pids", namespace.name], check=False).stdout.split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)
