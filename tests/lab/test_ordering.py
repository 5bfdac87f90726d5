"""At boot we come after the network and cloud-init's part in it, before traffic, and hold up nobody."""

from __future__ import annotations

import time

import pytest

from tests.lab.asking import before_opening, gate_is_open, ordering_problems, web
from tests.lab.fleet import HERE, Fleet, baked, changed, report, wait_for_exit, wheel_house
from tests.lab.image import Image
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.roots import root
from tests.support.instance import Instance
from tests.support.programs import wait_for

pytestmark = pytest.mark.lab

UNPLUGGED = 20.0
"""Seconds without a cable."""
FINAL = "cloud-final.service"


@pytest.fixture(scope="module")
def with_cloud_init(lab: Lab) -> Image:
    """An image with real cloud-init and our engine in it."""
    return baked(root("cloud-init"), lab.folder)


def show(machine: BootedMachine, unit: str, name: str) -> str:
    """One property of a unit."""
    return machine.run(
        ["systemctl", "show", "--value", f"--property={name}", unit], check=True
    ).stdout.strip()


def at(machine: BootedMachine, unit: str, name: str) -> int:
    """Return when a unit reached a state, in microseconds of the monotonic clock."""
    return int(show(machine, unit, f"{name}TimestampMonotonic"))


def must_be_in_order(machine: BootedMachine) -> None:
    """Our job was neither dropped nor run before the network, and the fence came first."""
    assert ordering_problems(machine) == []
    assert show(machine, "pyinfra-solo.service", "ActiveState") == "active"
    ours = at(machine, "pyinfra-solo.service", "ExecMainStart")
    assert at(machine, "network-online.target", "ActiveEnter") <= ours
    fence = at(machine, "pyinfra-solo-fence.service", "ActiveEnter")
    assert 0 < fence <= at(machine, "nginx.service", "ExecMainStart")


def test_slow_user_data_and_the_boot_run_do_not_wait_for_each_other(
    fleet: Fleet, with_cloud_init: Image
) -> None:
    script = "#!/bin/sh\nsleep 8\necho done > /root/user-data\n"
    machine = fleet.machine("cloud1", image=with_cloud_init, instance=web(user_data=script))
    fleet.in_service(machine)
    assert show(machine, FINAL, "ActiveState") == "activating"
    assert not machine.exists("/root/user-data")
    assert at(machine, "cloud-init.service", "ActiveEnter") > 0
    ours = at(machine, "pyinfra-solo.service", "ExecMainStart")
    assert at(machine, "cloud-init.service", "ActiveEnter") <= ours
    must_be_in_order(machine)
    wait_for("user data", lambda: machine.exists("/root/user-data"), timeout=30)
    machine.wait_running()


def test_failing_user_data_does_not_keep_a_machine_out_of_service(
    fleet: Fleet, with_cloud_init: Image
) -> None:
    machine = fleet.machine("cloud1", image=with_cloud_init, instance=web(user_data="#!/bin/sh\nexit 3\n"))
    health = fleet.in_service(machine)
    wait_for("cloud-final", lambda: show(machine, FINAL, "ActiveState") == "failed", timeout=30)
    must_be_in_order(machine)
    assert health.timeline[-1].status == 200


PIP = "[global]\nno-index = true\nfind-links = http://pypi.lab/house/\ntrusted-host = pypi.lab\n"


def test_user_data_installs_us_on_a_plain_debian_image(fleet: Fleet, lab: Lab) -> None:
    """The role is `base`: the app's wheels, which an image brings, are in no index here."""
    text = (HERE / "bootstrap/user-data.yaml").read_text()
    text = text.replace("https://git.example.com/acme/ops.git", fleet.ops.http_url)
    instance = Instance(
        tags={"Role": "base", "Stage": "production"}, user_data=text.replace("0" * 40, fleet.sha)
    )
    lab.packages.wheels["house"] = wheel_house()
    machine = fleet.machine("stock1", image=root("cloud-init"), instance=instance)
    machine.write("/etc/pip.conf", PIP)
    machine.power_on()
    wait_for_exit(machine, 0, timeout=240)
    assert gate_is_open(machine)
    assert ordering_problems(machine) == []
    machine.reboot()
    wait_for_exit(machine, 0)
    assert changed(machine) == []
    must_be_in_order(machine)


SITE = "server {{ listen 80 default_server; root {root}; }}\n"


def test_a_health_file_of_an_older_image_is_never_served(fleet: Fleet, lab: Lab) -> None:
    usual, named = fleet.machine("old1"), fleet.machine("old2")
    usual.write("/var/www/html/ping.html", "stale\n")
    named.write("/srv/old pages/ping.html", "stale\n")
    named.write("/etc/pyinfra-solo/stale", "# of the image of 2019\n\n/srv/old pages/ping.html\n")
    named.write("/etc/nginx/sites-available/default", SITE.format(root='"/srv/old pages"'))
    checkers = [lab.health(machine) for machine in (usual, named)]
    for machine in (usual, named):
        machine.power_on()
    for health in checkers:
        machine = health.machine
        wait_for_exit(machine, 0)
        health.wait_for_200()
        before = before_opening(machine, health)
        assert 404 in {check.status for check in before}, "the image's own site was up before our gate"
        assert 200 not in {check.status for check in before}, health.story()
        assert {check.body for check in health.timeline if check.status == 200} == {"ok"}
        must_be_in_order(machine)
    assert "fence: removed /var/www/html/ping.html" in usual.journal("pyinfra-solo-fence")
    assert not usual.exists("/var/www/html/ping.html")
    assert not named.exists("/srv/old pages/ping.html")


def test_a_machine_comes_into_service_when_its_late_network_is_up(fleet: Fleet, lab: Lab) -> None:
    machine = fleet.machine("late1")
    machine.unplug()
    health = lab.health(machine)
    machine.power_on()
    time.sleep(UNPLUGGED)
    assert show(machine, "pyinfra-solo.service", "ActiveState") == "inactive"
    machine.plug()
    assert health.wait_for_200() > UNPLUGGED
    assert {check.status for check in before_opening(machine, health)} <= {0, 404, 503}, health.story()
    assert report(machine)["exit_code"] == 0
    must_be_in_order(machine)
