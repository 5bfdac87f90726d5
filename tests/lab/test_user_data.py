"""bootstrap/user-data.yaml makes a machine of ours from a plain Debian image, however long the index is away."""

from __future__ import annotations

import pytest

from tests.lab.asking import gate_is_open, ordering_problems
from tests.lab.fleet import HERE, Fleet, changed, wait_for_exit, wheel_house
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.roots import root
from tests.support.instance import Instance
from tests.support.programs import wait_for

pytestmark = pytest.mark.lab

URL, COMMIT = "https://git.example.com/acme/ops.git", "0" * 40
SEED = "/usr/local/sbin/pyinfra-solo-seed"
STARTER = "/var/lib/cloud/scripts/per-boot/pyinfra-solo-seed"
PIP = "[global]\nno-index = true\nfind-links = http://pypi.lab/house/\ntrusted-host = pypi.lab\nretries = 0\n"
TRIES = 240.0
"""Seconds in which tries and an installation must come to an end: a bound, not a measure."""
PARAMETER = "/ops/deploy_key"


def user_data(fleet: Fleet, url: str = "") -> str:
    """Return the file with this fleet's ops repo in it."""
    text = (HERE / "bootstrap/user-data.yaml").read_text()
    assert text.count(URL) == 2
    return text.replace(URL, url or fleet.ops.http_url).replace(COMMIT, fleet.sha)


def plain(lab: Lab, name: str, text: str, init: str = "systemd") -> BootedMachine:
    """Make a plain Debian with cloud-init, off. Its role is `base`: the app's wheels are in no index here."""
    instance = Instance(tags={"Role": "base", "Stage": "production"}, user_data=text)
    lab.packages.wheels["house"] = wheel_house()
    image = root("cloud-init" if init == "systemd" else f"cloud-init-{init}")
    machine = lab.machine(name, image, instance=instance, init=init)
    machine.write("/etc/pip.conf", PIP)
    return machine


def failed_tries(machine: BootedMachine) -> int:
    """Count the tries in all its boots that have failed."""
    return machine.console().count("the next try is in 20 s")


def must_be_installed(machine: BootedMachine) -> None:
    """It is in service, and nothing is left that would install it once more."""
    wait_for_exit(machine, 0, TRIES)
    assert gate_is_open(machine)
    assert not machine.exists(STARTER)
    assert not machine.exists("/opt/pyinfra-solo-seed")


def fails_twice(machine: BootedMachine, lab: Lab) -> None:
    """Boot it without a package index, and wait until two tries have failed and the boot is over."""
    lab.packages.stop()
    machine.power_on()
    wait_for("two failed tries", lambda: failed_tries(machine) >= 2, TRIES)
    machine.wait_running()


def fails_once_more_after_a_reboot(machine: BootedMachine) -> None:
    machine.reboot()
    before = failed_tries(machine)
    wait_for("a failed try", lambda: failed_tries(machine) > before, TRIES)


def test_user_data_tries_until_the_index_answers_even_after_a_reboot(fleet: Fleet, lab: Lab) -> None:
    machine = plain(lab, "plain1", user_data(fleet))
    fails_twice(machine, lab)
    final = machine.run("systemctl show -P ActiveState cloud-final.service").stdout
    assert final == "active\n", "the tries hold up the end of cloud-init"
    fails_once_more_after_a_reboot(machine)
    assert not machine.exists("/etc/systemd/system/pyinfra-solo.service")
    lab.packages.start()
    must_be_installed(machine)
    assert ordering_problems(machine) == []
    machine.reboot()
    wait_for_exit(machine, 0)
    assert changed(machine) == []
    assert ordering_problems(machine) == []


def test_user_data_reads_a_private_repo_by_a_key_of_the_parameter_store(fleet: Fleet, lab: Lab) -> None:
    """boto3 of Debian 12 does not know $AWS_ENDPOINT_URL, so the text names the lab's endpoint."""
    secret = lab.git.deploy_key.read_text()
    lab.aws.call("ssm", "put_parameter", Name=PARAMETER, Value=secret, Type="SecureString")
    text = user_data(fleet, fleet.ops.ssh_url)
    for old, new in (
        ("# deploy_key =", "deploy_key ="),
        ("# known_hosts =", "known_hosts ="),
        ("# git.example.com ssh-ed25519 AAAA...\n", lab.git.known_hosts),
        ("parameter=\n", f"parameter={PARAMETER}\n"),
        ('"ssm", ', f'"ssm", endpoint_url="{lab.aws.endpoint}", '),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    machine = plain(lab, "plain2", text)
    sources = lab.packages.add_debs(["python3-boto3"], root("cloud-init"))
    machine.write("/etc/apt/sources.list", sources)
    machine.power_on()
    must_be_installed(machine)
    key = machine.run("stat -c %a:%U /etc/pyinfra-solo/deploy_key; ls /etc/pyinfra-solo").stdout
    assert key == "600:root\nconfig.toml\ndeploy_key\nknown_hosts\n"
    # The trace holds the words of every command: one more installation, which changes nothing.
    trace = machine.run(f"sh -x {SEED}", check=True, timeout=TRIES)
    logs = machine.run("cat /var/log/cloud-init*.log; journalctl -q --no-pager").stdout
    body = secret.splitlines()[1]
    assert "get_parameter" in trace.stderr
    assert "nothing to change" in trace.stderr
    assert body not in trace.stdout + trace.stderr + logs


def test_user_data_tries_until_the_index_answers_without_systemd(fleet: Fleet, lab: Lab) -> None:
    machine = plain(lab, "plain3", user_data(fleet), "sysv")
    fails_twice(machine, lab)
    assert machine.exists("/var/lib/cloud/instance/boot-finished"), "the tries hold up the end of cloud-init"
    fails_once_more_after_a_reboot(machine)
    assert not machine.exists("/etc/init.d/pyinfra-solo")
    lab.packages.start()
    must_be_installed(machine)
