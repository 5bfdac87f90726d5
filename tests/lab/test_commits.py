"""A commit changes anything but what fetches it: dependencies, the engine itself, the app's release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.asking import listing, ops_with, page
from tests.lab.fleet import HERE, Fleet, changed, report, solo, wait_for_exit
from tests.lab.health import Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.wheels import wheel

pytestmark = pytest.mark.lab

BASE = "roles/base/__init__.py"
IMPORT = "import greeting\n\nassert greeting.__version__ == '1.0'\n"


def rebooted(machine: BootedMachine, health: Health) -> None:
    """The next boot, to the end of its run."""
    machine.reboot()
    wait_for_exit(machine, 0)
    health.wait_for_200()


def test_the_next_boot_has_the_packages_a_commit_adds_to_the_lock_file(
    fleet: Fleet, lab: Lab, tmp_path: Path
) -> None:
    branch = "new-dependency"
    ops_with(fleet, branch, {"note": "made\n"})
    sha256 = wheel(tmp_path, "greeting", body="__version__ = '1.0'\n")
    lab.packages.wheels["greeting"] = tmp_path
    more = '\n[prepare]\nwheels = ["http://pypi.lab/greeting/"]\n'
    machine = fleet.machine("dep1", settings=fleet.settings(ref=branch) + more)
    health = fleet.in_service(machine)
    assert runtimes(machine) == set(), "the one in the image serves"
    lock = (fleet.tree / "requirements.lock").read_text()
    pinned = f"{lock}greeting==1.0 \\\n    --hash=sha256:{sha256}\n"
    role = (fleet.tree / BASE).read_text().replace("\nimport msgspec\n", f"\nimport msgspec\n{IMPORT}")
    assert IMPORT in role
    sha = ops_with(fleet, branch, {"requirements.lock": pinned, BASE: role})
    rebooted(machine, health)
    found = report(machine)
    assert found["sha"] == sha
    detail = next(station["detail"] for station in found["stations"] if station["name"] == "prepare")
    assert len(runtimes(machine)) == 1
    assert detail[-1].startswith(f"runtime {runtimes(machine).pop()}, ")
    lab.packages.stop()
    try:
        rebooted(machine, health)
    finally:
        lab.packages.start()
    assert changed(machine) == [], "a runtime that was made is found again, without its source"


def runtimes(machine: BootedMachine) -> set[str]:
    """The runtimes that were made on the machine."""
    return set(machine.run("ls /var/lib/pyinfra-solo/runtimes").stdout.split())


def test_the_next_boot_uses_the_engine_of_the_commit(fleet: Fleet) -> None:
    branch = "new-engine"
    ops_with(fleet, branch, {"note": "made\n"})
    machine = fleet.machine("engine1", settings=fleet.settings(ref=branch))
    health = fleet.in_service(machine)
    assert {one["name"].split(" | ")[0] for one in report(machine)["operations"]} == {"base", "web"}
    baked = listing(machine, "/opt/pyinfra-solo/engine")
    engine = "bootstrap/pyinfra_solo/ops_repo/bind.py"
    text = (fleet.tree / engine).read_text()
    naming = "name=self.role.name, kwargs"
    assert text.count(naming) == 1
    ops_with(fleet, branch, {engine: text.replace(naming, 'name=f"the role {self.role.name}", kwargs')})
    rebooted(machine, health)
    names = {one["name"].split(" | ")[0] for one in report(machine)["operations"]}
    assert names == {"the role base", "the role web"}
    assert changed(machine) == []
    assert listing(machine, "/opt/pyinfra-solo/engine") == baked


def releases(machine: BootedMachine) -> set[str]:
    """The ids of the releases that are kept."""
    return set(machine.run("ls /srv/shop/releases").stdout.split())


def current(machine: BootedMachine) -> dict[str, object]:
    """Return the release that answers, and its process."""
    found: dict[str, object] = json.loads(page(machine, "/").body)
    return found


def test_an_app_follows_its_ref_forward_and_back_and_prunes_releases(fleet: Fleet) -> None:
    branch = "releases"
    values = "inventories/group_data/all.py"
    text = (fleet.tree / values).read_text().replace('"main"', '"shop-1"') + "app_keep = 2\n"
    source = (HERE / "tests/app/shop.py").read_text()
    shas = [
        fleet.app.commit({"shop.py": f"{source}\n# {number}\n"}, f"release {number}", branch=f"shop-{number}",
                         parent=fleet.app.tip())
        for number in range(1, 6)
    ]  # fmt: skip
    ids = [sha[:12] for sha in shas]
    ops_with(fleet, branch, {values: text})
    machine = fleet.machine("app1", settings=fleet.settings(ref=branch))
    health = fleet.in_service(machine)
    first = current(machine)
    assert first["release"] == ids[0]
    for number in range(2, 6):
        ops_with(fleet, branch, {values: text.replace("shop-1", f"shop-{number}")})
        assert solo(machine, "run", "--detailed-exitcodes")[0] == 2
    health.wait_for_200()
    last = current(machine)
    assert last["release"] == ids[4]
    assert last["pid"] != first["pid"]
    assert set(ids[3:]) <= releases(machine)
    assert len(releases(machine)) <= 3, "two are kept beside the current one"
    assert machine.run("readlink /srv/shop/current").stdout.strip() == f"releases/{ids[4]}"
    assert changed(machine) == ["web | shop is at its release", "web | gunicorn serves shop"]
    ops_with(fleet, branch, {values: text.replace("shop-1", "shop-4")})
    assert solo(machine, "run", "--detailed-exitcodes")[0] == 2
    assert current(machine)["release"] == ids[3]
    assert solo(machine, "run", "--detailed-exitcodes")[0] == 0
    ops_with(fleet, branch, {values: text})
    assert solo(machine, "run", "--detailed-exitcodes")[0] == 2
    assert current(machine)["release"] == ids[0], "also to one that was pruned"
