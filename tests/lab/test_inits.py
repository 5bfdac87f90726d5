"""The same machine under SysV init and OpenRC: boots, supervises, retries, and stops."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.asking import (
    SLOW,
    answer_everything,
    before_opening,
    deploy_with,
    gate_is_open,
    ops_with,
    page,
    polled_while_going_down,
    web,
)
from tests.lab.fleet import Fleet, baked, changed, report, solo, status, wait_for_exit
from tests.lab.health import Health
from tests.lab.image import Image
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.roots import root
from tests.support.programs import wait_for

pytestmark = pytest.mark.lab

OURS = "service pyinfra-solo"
BRANCH = "other-inits"
RETRY = "pgrep -f '[p]yinfra-solo-retry'"


@pytest.fixture(scope="module", params=["sysv", "openrc"])
def init(request: pytest.FixtureRequest) -> str:
    """The init system."""
    return str(request.param)


@pytest.fixture(scope="module")
def old(lab: Lab, init: str) -> Image:
    """An image of it, with our engine in it."""
    return baked(root(init), lab.folder)


@pytest.fixture(scope="module")
def served(lab: Lab, fleet: Fleet, old: Image, init: str) -> Iterator[Health]:
    """A web in service under it, with its first boot's polls; its ops repo is these tests' own branch."""
    ops_with(fleet, BRANCH, {"deploy.py": deploy_with(fleet)})
    machine = fleet.machine(init, image=old, init=init, settings=fleet.settings(ref=BRANCH))
    machine.write("/var/www/html/ping.html", "stale\n")
    answer_everything(machine)
    health = lab.health(machine)
    machine.power_on()
    wait_for_exit(machine, 0)
    health.wait_for_200()
    yield health
    lab.discard(machine)


@pytest.fixture
def machine(served: Health) -> BootedMachine:
    """The machine, in service."""
    served.wait_for_200()
    return served.machine


def test_a_boot_answers_200_only_after_its_gate_opened(
    served: Health, machine: BootedMachine, init: str
) -> None:
    assert machine.read("/proc/1/comm") == "init\n"
    assert machine.run("command -v openrc").ok == (init == "openrc")
    before = before_opening(machine, served)
    assert {check.status for check in before} <= {0, 503}, (
        "the image's own site is never served: " + served.story()
    )
    assert report(machine)["outcome"] == "ready"
    assert "pyinfra-solo: open gate: ok" in machine.console()
    assert machine.run(f"{OURS} status").ok
    assert machine.run(f"{OURS}-fence status").ok


def test_a_second_boot_changes_nothing(served: Health, machine: BootedMachine) -> None:
    machine.reboot()
    since = served.mark()
    wait_for_exit(machine, 0)
    served.wait_for_200()
    assert changed(machine) == []
    before = before_opening(machine, served, since)
    assert {check.status for check in before} <= {0, 503}, served.story(since)


def test_a_killed_app_is_restarted(served: Health, machine: BootedMachine) -> None:
    first = process(machine)
    machine.run("pkill -9 -o -f '[g]unicorn'", check=True)
    wait_for("another gunicorn", lambda: process(machine) not in (0, first), timeout=30)
    assert solo(machine, "run", "--detailed-exitcodes")[0] == 0
    served.wait_for_200()


def process(machine: BootedMachine) -> int:
    """The process of the app that answers; 0 when none does."""
    answer = page(machine, "/")
    return int(json.loads(answer.body)["pid"]) if answer.status == 200 else 0


def test_stopping_ends_a_run_and_starting_opens_the_gate(fleet: Fleet, machine: BootedMachine) -> None:
    slow = deploy_with(fleet, SLOW.format(seconds=600))
    tip = fleet.ops.tip(BRANCH)
    ops_with(fleet, BRANCH, {"deploy.py": slow})
    machine.run(f"{OURS} restart", check=True)
    wait_for("the slow thing", lambda: machine.run("pgrep -f '[s]low-thing'").ok, timeout=30)
    assert "the boot run is going on" in machine.run(f"{OURS} status", check=True).stdout
    machine.run(f"{OURS} stop", check=True, timeout=60)
    assert machine.run("pgrep -af '[s]low-thing|[p]yinfra_solo|[p]yinfra-solo-retry'").stdout == ""
    assert not gate_is_open(machine)
    assert page(machine, "/ping.html").status == 503
    result = machine.run(f"{OURS} status")
    assert (result.code, result.stdout) == (3, "pyinfra-solo: the boot run ended with status 143\n")
    fleet.ops.branch(BRANCH, tip)
    machine.run(f"{OURS} start", check=True)
    wait_for_exit(machine, 0)
    assert page(machine, "/ping.html").status == 200


def test_a_failed_first_boot_is_retried_unless_the_role_is_wrong(
    fleet: Fleet, lab: Lab, old: Image, init: str
) -> None:
    lab.git.stop()
    waiting = fleet.machine("waiting", image=old, init=init, instance=web())
    wrong = fleet.machine("wrong", image=old, init=init, tags={"Role": "wbe", "Stage": "production"})
    waiting.power_on()
    wait_for_exit(waiting, 10)
    wait_for("a next try", lambda: "the next try is in 10 s" in waiting.console(), timeout=10)
    assert not gate_is_open(waiting)
    lab.git.start()
    wrong.power_on()
    found = wait_for_exit(wrong, 12)
    assert "Did you mean 'web'?" in found["error"]
    fleet.in_service(waiting)
    wait_for("an end of trying", lambda: not wrong.run(RETRY).ok, timeout=10)
    assert status(wrong)["last_run"]["run"] == found["run"]
    result = wrong.run(f"{OURS} status")
    assert (result.code, result.stdout) == (3, "pyinfra-solo: the boot run ended with status 12\n")
    assert not gate_is_open(wrong)


SLOW_STOP = """sed -i '2i [ "$1" != stop ] || sleep 3' /etc/init.d/nginx; sed -n 2p /etc/init.d/nginx"""


def test_the_gate_closes_before_the_app_stops(lab: Lab, machine: BootedMachine) -> None:
    """Also when the web server takes its time, as one that ends its connections first."""
    assert machine.run(SLOW_STOP, check=True).stdout == '[ "$1" != stop ] || sleep 3\n'
    assert polled_while_going_down(lab, machine) == []
    machine.restart_when_off()
    wait_for_exit(machine, 0)


def test_no_web_server_starts_after_a_failed_fence(fleet: Fleet, old: Image, init: str) -> None:
    machine = fleet.machine("failed", image=old, init=init)
    machine.write("/srv/old/index.html", "not to be lost\n")
    machine.write("/etc/pyinfra-solo/stale", "/srv/old\n")
    machine.power_on()
    found = wait_for_exit(machine, 1)
    assert "nginx" in found["error"]
    assert page(machine, "/ping.html").status == 0
    reason = status(machine)["gate"]["reason"]
    assert "the fence failed: CANNOT REMOVE /srv/old: no web server may start beside it." in reason
    machine.run(
        "rm -r /srv/old; service pyinfra-solo-fence restart; service pyinfra-solo restart", check=True
    )
    wait_for_exit(machine, 0)
    assert page(machine, "/ping.html").status == 200


def test_an_operator_starts_a_web_server_as_it_is(fleet: Fleet, old: Image, init: str) -> None:
    """On a machine whose own configuration cannot be had."""
    machine = fleet.machine("held", image=old, init=init, tags={"Role": "wbe", "Stage": "production"})
    answer_everything(machine)
    machine.power_on()
    wait_for_exit(machine, 12)
    refused = machine.run("service nginx start")
    assert not refused.ok
    assert (
        "nginx is not started: this machine's own configuration is not loaded"
        in refused.stdout + refused.stderr
    )
    assert page(machine, "/ping.html").status == 0
    machine.run("pyinfra-solo gate unfence && service nginx start", check=True)
    assert page(machine, "/ping.html").body == "of the image\n"
    assert not status(machine)["ready"]
