"""Faults of the lab that would let another test pass wrongly: a fault that is none, a cut that loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.programs import LabError

pytestmark = pytest.mark.lab

META = "http://169.254.169.254/latest"
NGINX = "/index.nginx-debian.html"


def status(machine: BootedMachine, *words: str) -> str:
    """Return the HTTP status that curl(1) gets; 000 for no answer."""
    curl = f"curl -s -m 3 -o /dev/null -w '%{{http_code}}' {' '.join(words)}"
    return machine.run(curl, timeout=15).stdout


def on(lab: Lab, name: str) -> BootedMachine:
    """Boot a systemd machine."""
    machine = lab.machine(name)
    machine.power_on()
    machine.wait_running()
    return machine


def test_a_metadata_request_without_a_valid_token_is_refused(lab: Lab) -> None:
    machine = on(lab, "web1")
    ttl = "X-aws-ec2-metadata-token-ttl-seconds"
    assert status(machine, f"{META}/meta-data/instance-id") == "401"
    assert status(machine, "-H 'X-aws-ec2-metadata-token: wrong'", f"{META}/meta-data/") == "401"
    assert status(machine, "-X PUT", f"{META}/api/token") == "400"
    assert status(machine, f"-X PUT -H '{ttl}: 0'", f"{META}/api/token") == "400"
    forwarded = f"-X PUT -H '{ttl}: 60' -H 'X-Forwarded-For: 10.0.0.1'"
    assert status(machine, forwarded, f"{META}/api/token") == "403"
    assert status(machine, f"{META}/api/token") == "405"
    short = f"-X PUT -H '{ttl}: 1' {META}/api/token"
    late = machine.run(f"T=$(curl -s {short}); sleep 1.2; echo $T").stdout.strip()
    assert status(machine, f"-H 'X-aws-ec2-metadata-token: {late}'", f"{META}/meta-data/") == "401"


def test_the_metadata_service_has_each_fault_that_is_set(lab: Lab) -> None:
    machine = on(lab, "web1")
    put = f"-X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {META}/api/token"
    imds = lab.imds
    imds.faults.fail = [503, 503]
    assert [status(machine, put) for _ in range(3)] == ["503", "503", "200"]
    imds.refuse_tokens = 1
    assert [status(machine, put) for _ in range(2)] == ["403", "200"]
    imds.faults.drop = 1
    assert [status(machine, put) for _ in range(2)] == ["000", "200"]
    imds.version_1_only = True
    assert status(machine, put) == "405"
    assert status(machine, f"{META}/meta-data/instance-id") == "200"
    imds.heal()
    for fault in (imds.hang, imds.unreachable):
        fault()
        began = time.monotonic()
        assert status(machine, put) == "000"
        assert time.monotonic() - began > 2.5
        imds.heal()
        assert status(machine, put) == "200"
    imds.stop()
    began = time.monotonic()
    assert status(machine, put) == "000"
    assert time.monotonic() - began < 2
    imds.start()
    assert status(machine, put) == "200"
    imds.tokens.clear()
    assert imds.requests(machine.address)


def test_a_power_cut_loses_what_was_not_synced(lab: Lab) -> None:
    machine = lab.machine("web1", disk="ext4")
    machine.power_on()
    machine.wait_running()
    machine.run("echo kept > /root/kept; sync; echo lost > /root/lost", check=True)
    machine.power_cut()
    machine.power_on()
    machine.wait_running()
    assert machine.read("/root/kept") == "kept\n"
    assert not machine.exists("/root/lost")


def test_a_power_cut_follows_another_while_servers_run(lab: Lab) -> None:
    assert lab.git.known_hosts
    other = on(lab, "web2")
    machine = lab.machine("web1", disk="ext4")
    for number in range(3):
        machine.power_on()
        machine.wait_running()
        machine.run(f"echo {number} > /root/boot; sync /root/boot", check=True)
        machine.power_cut()
    assert machine.read("/root/boot") == "2\n"
    assert other.is_on
    with pytest.raises(LabError, match="can lose power"):
        other.power_cut()


def ssh_client(lab: Lab, machine: BootedMachine) -> str:
    """Install the deploy key and the host key. Return the variable for git."""
    machine.write("/root/deploy", lab.git.deploy_key.read_text(), 0o600)
    machine.write("/root/known", lab.git.known_hosts)
    options = "-o UserKnownHostsFile=/root/known -o StrictHostKeyChecking=yes -o BatchMode=yes"
    return f"GIT_SSH_COMMAND='ssh -i /root/deploy {options}'"


def test_a_changed_host_key_is_refused_by_ssh(lab: Lab) -> None:
    machine = on(lab, "web1")
    repository = lab.git.repository("swapped")
    repository.commit({"a": "1\n"}, "first")
    ssh = ssh_client(lab, machine)
    lab.git.swap_host_key()
    refused = machine.run(f"{ssh} git ls-remote {repository.ssh_url}")
    assert not refused.ok
    assert "HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    ssh = ssh_client(lab, machine)
    machine.run(f"{ssh} git ls-remote {repository.ssh_url}", check=True)


def test_the_git_server_has_each_fault_that_is_set(lab: Lab) -> None:
    machine = on(lab, "web1")
    repository = lab.git.repository("failing")
    repository.commit({"a": "1\n" * 5000}, "first")
    ssh = ssh_client(lab, machine)
    asks = [f"git ls-remote {repository.http_url}", f"{ssh} git ls-remote {repository.ssh_url}"]
    lab.git.hang()
    assert [machine.run(f'timeout 2 sh -c "{ask}"').code for ask in asks] == [124, 124]
    lab.git.hang(False)
    lab.git.stop()
    assert [machine.run(ask).code for ask in asks] == [128, 128]
    lab.git.start()
    assert [machine.run(ask).code for ask in asks] == [0, 0]
    lab.git.faults.drop_after = 60
    assert not machine.run(f"git clone -q {repository.http_url} /root/cut").ok
    lab.git.faults.clear()
    lab.git.faults.fail = [500]
    assert [machine.run(asks[0]).code for _ in range(2)] == [128, 0]


def test_the_health_checker_sees_each_change_of_the_answer(lab: Lab) -> None:
    machine = lab.machine("web1")
    health = lab.health(machine, NGINX)
    time.sleep(0.5)
    machine.power_on()
    up = health.wait_for_200(20)
    assert health.first_200() == up
    machine.run("systemctl stop nginx", check=True)
    down = health.wait_until_not_200(5)
    machine.run("systemctl start nginx", check=True)
    assert down < health.wait_for_200(10)
    machine.run("systemctl kill --signal=STOP nginx", check=True)
    health.wait_until_not_200(5)
    mark = health.mark()
    time.sleep(1.5)
    assert health.first_200(mark) is None
    assert "200" in health.story()


KILLED = """
import sys
from pathlib import Path
from tests.lab.lab import Lab
lab = Lab(Path(sys.argv[1])).__enter__()
lab.git.known_hosts
machine = lab.machine("web1", disk="ext4")
machine.power_on()
machine.wait_running()
print(lab.network.name, flush=True)
sys.stdin.read()
"""


def test_a_new_lab_removes_what_a_killed_one_left(lab: Lab, tmp_path: Path) -> None:
    here = on(lab, "web1")
    folder = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert name
        os.kill(process.pid, signal.SIGKILL)
    with Lab(tmp_path / "next"):
        assert not folder.exists()
        assert str(folder) not in Path("/proc/mounts").read_text()
        assert not list(Path("/run/netns").glob(f"{name}*"))
        assert str(folder) not in subprocess.check_output(["ps", "axww"], text=True)
    assert here.run("systemctl is-system-running").stdout == "running\n"
