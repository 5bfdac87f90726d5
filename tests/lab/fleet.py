"""Machines of ours in a lab: an image baked by install.sh, the ops repo, and the app that they run."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import packages, roots
from tests.lab.disk import Kind
from tests.lab.health import Health
from tests.lab.image import Chroot, Image, digest, make_image
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.instance import Instance
from tests.support.programs import LabError, wait_for
from tests.support.repository import Repository

HERE = Path(__file__).parents[2]
BAKED = ("bootstrap", "requirements.lock", "deploy.py", "roles", "inventories")
"""Paths of the working tree that make an image and an ops repo."""
NAME = "lab"
"""The name of our ops repo."""
GATE = "/run/pyinfra-solo/gate/ping.html"
READY = 60.0
"""Seconds in which any machine of the lab must be in service: a bound, not a measure."""


def sources(into: Path) -> Path:
    """Copy the working tree's files of BAKED that git does not ignore."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "--", *BAKED],
        cwd=HERE, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in listed.splitlines():
        if (HERE / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HERE / name, into / name)
    return into


def wheel_house() -> Path:
    """Return a folder of all wheels of the engine, the app and uv: no machine of the lab needs an index."""
    locks = ("bootstrap/uv.txt", "requirements.lock", "tests/app/requirements.lock")
    folders = [packages.wheels((HERE / lock).read_text()) for lock in locks]
    house = folders[0].parent / digest(*(folder.name for folder in folders))
    if not house.exists():
        building = house.with_name(f".{house.name}.building")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        for folder in folders:
            for wheel in folder.glob("*.whl"):
                shutil.copy2(wheel, building / wheel.name)
        building.rename(house)
    return house


def baked(root: Image, folder: Path) -> Image:
    """Build `root` with our engine in it, by the install.sh that bakes real images."""
    tree = sources(folder / "sources")
    files = sorted(path for path in tree.rglob("*") if path.is_file() and "roles" not in path.parts)
    key = digest(*(f"{path.relative_to(tree)}\0{path.read_bytes()!r}" for path in files))

    def install(chroot: Chroot) -> None:
        chroot.run("/ops/bootstrap/install.sh --wheels /wheels", timeout=600)

    house = wheel_house()
    return make_image(
        root, install, f"baked-{digest(key, house.name)}", binds={tree: "/ops", house: "/wheels"}
    )


@dataclass
class Fleet:
    """A lab with our ops repo and app in it, and machines made from a baked image."""

    lab: Lab
    image: Image
    ops: Repository = field(init=False)
    app: Repository = field(init=False)

    def __post_init__(self) -> None:
        self.ops, self.app = self.lab.git.repository("ops"), self.lab.git.repository("shop")
        self.app.copy_tree(HERE / "tests/app", "The shop")
        self.tree = sources(self.lab.folder / "ops")
        values = f'app_repo = "{self.app.http_url}"\napp_ref = "main"\napp_workers = 1\njournal_mib = 64\n'
        (self.tree / "inventories/group_data/all.py").write_text(values)
        for stage in ("production", "staging"):
            (self.tree / f"inventories/group_data/{stage}.py").write_text('"""A stage of the lab."""\n')
        (self.tree / "ops.toml").write_text(f'name = "{NAME}"\n')
        self.sha = self.ops.copy_tree(self.tree, "Our machines")

    def settings(self, **ops: Any) -> str:
        """Write a settings file's text: this fleet's ops repo, and other keys of `ops`."""
        values = {"remotes": [self.ops.http_url], "timeout": 10.0, **ops}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        return "\n".join(
            [
                '[machine]\nec2 = "yes"  # a container has no DMI',
                "[ops]",
                *lines,
                "[limits]",
                "metadata = 60.0",
                "deadline = 300.0",
                "",
            ]
        )

    def machine(
        self,
        name: str,
        *,
        tags: dict[str, str] | None = None,
        groups: list[str] | None = None,
        settings: str | None = None,
        disk: Kind = "dir",
        image: Image | None = None,
        init: str = "systemd",
        instance: Instance | None = None,
    ) -> BootedMachine:
        """Make a machine of ours, off. Without tags and groups it is tagged as a web of production."""
        if tags is None and groups is None:
            tags = {"Role": "web", "Stage": "production"}
        described = instance or Instance(tags=tags or {}, security_groups=groups or ["default"])
        machine = self.lab.machine(name, image or self.image, disk=disk, init=init, instance=described)
        machine.write("/etc/pyinfra-solo/config.toml", settings or self.settings(), 0o600)
        return machine

    def in_service(self, machine: BootedMachine, timeout: float = READY) -> Health:
        """Switch it on, and wait for the first 200. Raises LabError with its journal when none comes."""
        health = self.lab.health(machine)
        if not machine.is_on:
            machine.power_on()
        try:
            health.wait_for_200(timeout)
        except LabError as error:
            raise LabError(f"{error}\n{machine.journal('pyinfra-solo')[-6000:]}") from error
        return health


def solo(machine: BootedMachine, *words: str, timeout: float = 120) -> tuple[int, str, str]:
    """Run `pyinfra-solo` in the machine: exit status, stdout, stderr."""
    result = machine.run(f"pyinfra-solo {shlex.join(words)}", timeout=timeout)
    return result.code, result.stdout, result.stderr


def status(machine: BootedMachine) -> dict[str, Any]:
    """`pyinfra-solo status --json`."""
    found: dict[str, Any] = json.loads(solo(machine, "status", "--json")[1])
    return found


def report(machine: BootedMachine) -> dict[str, Any]:
    """Read the last run's report."""
    found: dict[str, Any] = json.loads(machine.read("/var/lib/pyinfra-solo/last-run.json"))
    return found


def changed(machine: BootedMachine) -> list[str]:
    """List the operations that changed something in the last run."""
    return [operation["name"] for operation in report(machine)["operations"] if operation["changed"]]


def wait_for_exit(machine: BootedMachine, code: int, timeout: float = READY) -> dict[str, Any]:
    """Wait until a run of this boot has ended with `code`; its report. Raises LabError."""
    boot_id = machine.read("/proc/sys/kernel/random/boot_id").strip()

    def ended() -> bool:
        if not machine.exists("/var/lib/pyinfra-solo/last-run.json"):
            return False
        found = report(machine)
        return bool(found["boot_id"] == boot_id and found["exit_code"] == code)

    try:
        wait_for(f"exit status {code} on {machine.name}", ended, timeout, every=0.2)
    except LabError as error:
        raise LabError(f"{error}\n{machine.journal('pyinfra-solo')[-6000:]}") from error
    return report(machine)


def systemd_image(folder: Path) -> Image:
    """Return the image that most machines of the lab start from."""
    return baked(roots.root("systemd"), folder)
