"""What a plan announces is what a run does: every role in every stage, from a bare machine on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab import roots
from tests.lab.fleet import Fleet, baked
from tests.lab.lab import Lab
from tests.lab.machine import Machine

pytestmark = pytest.mark.lab

HERE = Path(__file__).parents[2]
PACKAGES = ["nginx-light", "unattended-upgrades"]
ROLES = sorted(path.parent.name for path in (HERE / "roles").glob("*/__init__.py"))
STAGES = sorted(path.stem for path in (HERE / "inventories").glob("*.py"))
DRIFT = """
echo '# drifted' >>/etc/apt/apt.conf.d/95pyinfra-solo
chmod 600 /etc/systemd/journald.conf.d/50-pyinfra-solo.conf
usermod --shell /bin/sh deploy
rm -rf /srv/shop/current
[ ! -e /etc/nginx/nginx.conf ] || echo '# drifted' >>/etc/nginx/nginx.conf
for unit in shop shop-worker; do
    [ ! -e /etc/systemd/system/$unit.service ] || echo '# drifted' >>/etc/systemd/system/$unit.service
done
"""


def changes(machine: Machine, words: str) -> list[str]:
    """The operations that a command says it would change, or has changed."""
    done = machine.run(f"pyinfra-solo {words} --json", timeout=180)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["outcome"] in ("planned", "ready", "done"), found["error"]
    assert found.get("not_idempotent", []) == []
    return [one["name"] for one in found["operations"] if one["changed"]]


@pytest.mark.parametrize("native", ["", " --stock"])
@pytest.mark.parametrize("role", ROLES)
def test_what_a_plan_announces_is_what_a_run_does(lab: Lab, fleet: Fleet, role: str, native: str) -> None:
    bare = baked(roots.root("bare"), lab.folder)
    machine = fleet.machine(f"plan-{role}{len(native)}", image=bare)
    machine.write("/etc/apt/sources.list", lab.packages.add_debs(PACKAGES, bare))
    machine.run("systemctl -q disable pyinfra-solo", check=True)
    machine.power_on()
    machine.wait_running()
    for number, stage in enumerate(STAGES):
        words = f"--role {role} --stage {stage}{native}"
        announced = changes(machine, f"plan {words}")
        assert bool(announced) == (number == 0), "the first stage makes the machine, the next finds it made"
        assert changes(machine, f"run {words}") == announced
        assert changes(machine, f"plan {words}") == []
    machine.run(DRIFT, check=True)
    announced = changes(machine, f"plan {words}")
    assert len(announced) >= 3
    assert changes(machine, f"run {words}") == announced
    assert changes(machine, f"run {words}") == []
    lab.discard(machine)
