"""At boot we come after the network and cloud-init's part in it, before traffic, and hold up nobody."""

from __future__ import annotations

import time

import pytest

from tests.lab.asking import (
    answer_everything,
    before_opening,
    drop_in,
    ops_with,
    ordering_problems,
    page,
    polled_while_going_down,
    web,
)
from tests.lab.fleet import Fleet, baked, changed, report, solo, status, wait_for_exit
from tests.lab.image import Image
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.roots import root
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
        assert {check.status for check in before} <= {0, 503}, "the image's own site is up: " + health.story()
        assert {check.body for check in health.timeline if check.status == 200} == {"ok"}
        must_be_in_order(machine)
    assert "fence: removed /var/www/html/ping.html" in usual.journal("pyinfra-solo-fence")
    assert not usual.exists("/var/www/html/ping.html")
    assert not named.exists("/srv/old pages/ping.html")


def test_a_site_that_answers_everything_is_never_served(fleet: Fleet, lab: Lab) -> None:
    machine = fleet.machine("spa1")
    answer_everything(machine)
    health = lab.health(machine, interval=0.05)
    machine.power_on()
    wait_for_exit(machine, 0)
    health.wait_for_200()
    assert {check.status for check in before_opening(machine, health)} <= {0, 503}, health.story()
    assert {check.body for check in health.timeline if check.status == 200} == {"ok"}
    assert "nginx is not started: the configuration of this machine is not loaded" in machine.journal("nginx")
    assert "web | nginx serves our site" in changed(machine), "its own operation starts it"
    assert solo(machine, "plan")[0] == 0
    must_be_in_order(machine)


PLAIN = '''
from io import StringIO
from pyinfra.operations import files, systemd
from pyinfra_solo.role import role

SITE = """server { listen 80 default_server; location = /ping.html { root /run/pyinfra-solo/gate; } }
"""

@role()
def plain(data):
    site = files.put(name="the site is ours", src=StringIO(SITE), dest="/etc/nginx/sites-available/default")
    pass
'''


NGINX = 'systemd.service(name="nginx is there", service="nginx", {arguments})'


def plain(fleet: Fleet, name: str, operation: str) -> BootedMachine:
    """Make a machine with one role, which writes nginx's site and does this; its image answers every path."""
    ops_with(fleet, name, {"roles/plain/__init__.py": PLAIN.replace("pass", operation)})
    tags = {"Role": "plain", "Stage": "production"}
    machine = fleet.machine(name, tags=tags, settings=fleet.settings(ref=name))
    answer_everything(machine)
    return machine


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("plain-runs", NGINX.format(arguments="running=True")),
        ("plain-restarts", NGINX.format(arguments="restarted=True, _if=site.did_change")),
        ("plain-files", ""),
    ],
)
def test_a_role_of_pyinfras_own_operations_is_served_at_every_boot(
    fleet: Fleet, name: str, operation: str
) -> None:
    """The second and the third rely on systemd to start nginx at a boot that changes nothing."""
    machine = plain(fleet, name, operation)
    health = fleet.in_service(machine)
    machine.reboot()
    since = health.mark()
    wait_for_exit(machine, 0)
    health.wait_for_200()
    assert {check.body for check in health.timeline[since:] if check.status == 200} == {"ok"}
    assert changed(machine) == []
    journal = machine.journal("pyinfra-solo", boot=True)
    assert "nginx: started, which the fence had kept down" in journal


def test_a_web_server_that_the_role_leaves_alone_may_not_answer_for_the_gate(fleet: Fleet) -> None:
    """It is enabled in the image, so it starts at the end of the converge, and stops when it is found out."""
    machine = plain(fleet, "plain-other", "")
    site = "/etc/nginx/sites-available/default"
    machine.run(f"mkdir -p /etc/nginx/conf.d; mv {site} /etc/nginx/conf.d/old.conf", check=True)
    machine.run("rm /etc/nginx/sites-enabled/default", check=True)
    machine.power_on()
    found = wait_for_exit(machine, 30)
    assert "Port 80 answers /ping.html with 200 although the gate is closed" in found["error"]
    assert page(machine, "/ping.html").status == 0
    assert not status(machine)["ready"]


def test_the_gate_closes_before_the_app_stops(fleet: Fleet, lab: Lab) -> None:
    """Also when the web server takes its time, as one that ends its connections first."""
    machine = fleet.machine("down1")
    drop_in(machine, "[Service]\nExecStop=\nExecStop=/bin/sleep 3\n", unit="nginx.service")
    fleet.in_service(machine)
    machine.wait_running()
    assert polled_while_going_down(lab, machine) == []


def test_no_web_server_starts_after_a_failed_fence(fleet: Fleet) -> None:
    machine = fleet.machine("failed1")
    machine.write("/srv/old/index.html", "not to be lost\n")
    machine.write("/etc/pyinfra-solo/stale", "/srv/old\n")
    machine.power_on()
    wait_for_exit(machine, 1)
    assert page(machine, "/ping.html").status == 0
    reason = status(machine)["gate"]["reason"]
    assert "the fence failed: CANNOT REMOVE /srv/old: no web server may start beside it." in reason
    machine.run("rm -r /srv/old; systemctl restart pyinfra-solo", check=True)
    wait_for_exit(machine, 0)
    assert page(machine, "/ping.html").status == 200


def test_an_operator_starts_a_web_server_as_it_is(fleet: Fleet) -> None:
    """On a machine whose own configuration cannot be had."""
    machine = fleet.machine("held1", tags={"Role": "wbe", "Stage": "production"})
    answer_everything(machine)
    machine.power_on()
    wait_for_exit(machine, 12)
    machine.run("systemctl start nginx")
    assert page(machine, "/ping.html").status == 0
    machine.run("pyinfra-solo gate unfence && systemctl start nginx", check=True)
    assert page(machine, "/ping.html").body == "of the image\n"
    assert not status(machine)["ready"]


def test_a_machine_comes_into_service_when_its_late_network_is_up(fleet: Fleet, lab: Lab) -> None:
    machine = fleet.machine("late1")
    machine.unplug()
    health = lab.health(machine)
    machine.power_on()
    time.sleep(UNPLUGGED)
    assert show(machine, "pyinfra-solo.service", "ActiveState") == "inactive"
    machine.plug()
    assert health.wait_for_200() > UNPLUGGED
    assert {check.status for check in before_opening(machine, health)} <= {0, 503}, health.story()
    assert report(machine)["exit_code"] == 0
    must_be_in_order(machine)
