"""The lab tells the truth: what it calls a boot, a power cut or a refused key is one."""

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
from tests.support.instance import Instance
from tests.support.programs import LabError
from tests.support.repository import signing_key

pytestmark = pytest.mark.lab

META = "http://169.254.169.254/latest"
NGINX = "/index.nginx-debian.html"
TOKEN = f"$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {META}/api/token)"


def status(machine: BootedMachine, *words: str) -> str:
    """The status that curl(1) with these words is answered; 000 for none."""
    curl = f"curl -s -m 3 -o /dev/null -w '%{{http_code}}' {' '.join(words)}"
    return machine.run(curl, timeout=15).stdout


def metadata(machine: BootedMachine, path: str) -> str:
    """A path's text, asked for as version 2 wants it."""
    header = f'"X-aws-ec2-metadata-token: {TOKEN}"'
    return machine.run(f"curl -s -m 3 -H {header} '{META}/{path}'", timeout=15).stdout


def on(lab: Lab, name: str, instance: Instance | None = None) -> BootedMachine:
    """A systemd machine that has booted."""
    machine = lab.machine(name, instance=instance)
    machine.power_on()
    machine.wait_running()
    return machine


@pytest.mark.parametrize("root", ["systemd", "bare", "cloud-init"])
def test_a_systemd_machine_boots_to_running_with_its_address(lab: Lab, root: str) -> None:
    machine = lab.machine("web1", root)
    machine.power_on()
    machine.wait_running()
    # Nothing on a bare machine wants this target, so nothing there has waited for the address.
    machine.run("systemctl start network-online.target", check=True)
    assert machine.read("/proc/1/comm") == "systemd\n"
    assert f"{machine.address}/24" in machine.run("ip -4 -br addr show eth0").stdout
    assert machine.run("getent hosts git.lab").stdout.split()[0] == "10.77.0.10"


@pytest.mark.parametrize("root", ["sysv", "openrc"])
def test_a_machine_of_another_init_boots_and_serves(lab: Lab, root: str) -> None:
    machine = lab.machine("old1", root)
    health = lab.health(machine, NGINX)
    machine.power_on()
    machine.wait_running()
    health.wait_for_200(20)
    assert machine.read("/proc/1/comm") == "init\n"
    assert f"{machine.address}/24" in machine.run("ip -4 -br addr show eth0").stdout


def test_real_cloud_init_runs_user_data_from_the_metadata_service(lab: Lab) -> None:
    script = "#!/bin/sh\necho ran > /root/user-data\n"
    instance = Instance(tags={"role": "web"}, user_data=script)
    machine = lab.machine("cloud1", "cloud-init", instance=instance)
    seen = len(lab.imds.log)
    machine.power_on()
    machine.wait_running()
    assert machine.read("/root/user-data") == "ran\n"
    assert machine.run("cloud-init query instance_id").stdout.strip() == instance.id
    assert all("2021-03-23" in asked.path or "token" in asked.path for asked in lab.imds.log[seen : seen + 3])


def test_the_metadata_service_wants_tokens(lab: Lab) -> None:
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


def test_each_machine_is_told_who_it_is(lab: Lab) -> None:
    tags = {"role": "web", "a b": 'c\u00e9 "d" /', "path/key": "x"}
    groups = ["web", "base"]
    first = on(lab, "web1", Instance(tags=tags, security_groups=groups, asg="web-asg"))
    second = on(lab, "db1", Instance(tags=None, region="us-east-1", az="us-east-1b"))
    assert metadata(first, "meta-data/instance-id") == lab.instances["web1"].id
    assert metadata(second, "meta-data/instance-id") == lab.instances["db1"].id
    assert metadata(first, "meta-data/security-groups").split() == groups
    index = metadata(first, "meta-data/tags/instance").splitlines()
    assert sorted(index) == sorted([*tags, "aws:autoscaling:groupName"])
    assert metadata(first, "meta-data/tags/instance/a%20b") == tags["a b"]
    assert metadata(first, "meta-data/autoscaling/target-lifecycle-state") == "InService"
    assert metadata(second, "meta-data/placement/region") == "us-east-1"
    header = f'-H "X-aws-ec2-metadata-token: {TOKEN}"'
    assert status(second, header, f"{META}/meta-data/tags/instance") == "404"
    assert status(second, header, f"{META}/meta-data/spot/instance-action") == "404"
    assert '"region": "us-east-1"' in metadata(second, "dynamic/instance-identity/document")
    assert lab.instances["web1"].role in metadata(first, "meta-data/iam/security-credentials/")


def test_the_metadata_service_fails_as_it_is_told(lab: Lab) -> None:
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


def test_a_power_cut_can_be_followed_by_others_with_servers_about(lab: Lab) -> None:
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


def test_a_reboot_keeps_the_disk_and_starts_a_new_boot(lab: Lab) -> None:
    machine = on(lab, "web1")
    before = machine.read("/proc/sys/kernel/random/boot_id")
    machine.write("/root/kept", "yes\n")
    machine.reboot()
    machine.wait_running()
    assert machine.read("/root/kept") == "yes\n"
    assert machine.read("/proc/sys/kernel/random/boot_id") != before
    machine.power_off()
    assert "Stopped" in machine.console() or "Reached target" in machine.console()
    assert "nginx" in machine.journal()


def test_a_unit_runs_as_units_do_and_its_journal_can_be_read(lab: Lab) -> None:
    machine = on(lab, "web1")
    assert machine.unit("exit 7").code == 7
    assert machine.unit("cat /proc/self/cgroup").stdout.count("system.slice") >= 1
    machine.run("systemd-run --wait --unit=said echo a-word", check=True)
    assert "a-word" in machine.journal("said")


def test_git_is_fetched_over_http_and_ssh(lab: Lab) -> None:
    machine = on(lab, "web1")
    repository = lab.git.repository("fetched")
    first = repository.commit({"a": "1\n", "dir/run": "#!/bin/sh\n"}, "first")
    tip = repository.commit({"a": None, "b": b"2\n"}, "second")
    repository.branch("old", first)
    machine.run(f"git clone -q {repository.http_url} /root/http", check=True)
    assert machine.run("git -C /root/http rev-parse HEAD").stdout.strip() == tip
    assert machine.run("ls /root/http").stdout.split() == ["b", "dir"]
    assert machine.run("test -x /root/http/dir/run").ok
    fetched = machine.run(f"git -C /root/http fetch -q --depth 1 {repository.http_url} {first}")
    assert fetched.ok
    ssh = ssh_client(lab, machine)
    machine.run(f"{ssh} git clone -q {repository.ssh_url} /root/ssh", check=True)
    assert machine.run("git -C /root/ssh rev-parse HEAD").stdout.strip() == tip
    assert not machine.run(f"{ssh} sh -c '$GIT_SSH_COMMAND git@git.lab id'").ok


def ssh_client(lab: Lab, machine: BootedMachine) -> str:
    """Make the deploy key and the host key known; what to write before git."""
    machine.write("/root/deploy", lab.git.deploy_key.read_text(), 0o600)
    machine.write("/root/known", lab.git.known_hosts)
    options = "-o UserKnownHostsFile=/root/known -o StrictHostKeyChecking=yes -o BatchMode=yes"
    return f"GIT_SSH_COMMAND='ssh -i /root/deploy {options}'"


def test_a_changed_host_key_is_refused(lab: Lab) -> None:
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


def test_git_fails_as_it_is_told(lab: Lab) -> None:
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


def test_commits_are_signed_by_keys_that_git_can_tell_apart(lab: Lab, tmp_path: Path) -> None:
    machine = on(lab, "web1")
    repository = lab.git.repository("signed")
    key, allowed = signing_key(tmp_path, "operator")
    stranger, _ = signing_key(tmp_path, "stranger")
    good = repository.commit({"a": "1\n"}, "good", sign_with=key)
    bad = repository.commit({"a": "2\n"}, "bad", sign_with=stranger)
    repository.tag("v1", good, message="one", sign_with=key)
    machine.write("/root/allowed", allowed)
    machine.run(f"git clone -q {repository.http_url} /root/signed", check=True)
    git = "git -C /root/signed -c gpg.ssh.allowedSignersFile=/root/allowed"
    assert machine.run(f"{git} verify-commit {good}").ok
    assert machine.run(f"{git} verify-tag v1").ok
    assert not machine.run(f"{git} verify-commit {bad}").ok


def test_the_health_checker_sees_every_change(lab: Lab) -> None:
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
    assert not health.ever_200_between(0, health.now(), since=mark)
    assert "200" in health.story()


def test_a_machine_without_its_cable_has_no_network_until_it_is_back(lab: Lab) -> None:
    machine = lab.machine("web1")
    machine.unplug()
    machine.power_on()
    with pytest.raises(LabError, match="to run"):
        machine.wait_running(3)
    assert machine.address not in machine.run("ip -br addr").stdout
    machine.plug()
    machine.wait_running(20)
    assert machine.address in machine.run("ip -br addr").stdout
    lab.health(machine, NGINX).wait_for_200(5)


def test_two_machines_see_each_other(lab: Lab) -> None:
    first, second = lab.machine("web1"), lab.machine("web2")
    first.power_on()
    second.power_on()
    first.wait_running()
    second.wait_running()
    assert status(first, f"http://{second.address}/") == "200"
    first.kill()
    assert second.run("systemctl is-system-running").stdout == "running\n"


@pytest.mark.parametrize("disk", ["dir", "ext4"])
def test_a_clone_has_the_disk_and_another_identity(lab: Lab, disk: str) -> None:
    source = lab.machine("golden", disk="ext4" if disk == "ext4" else "dir")
    source.power_on()
    source.wait_running()
    source.write("/root/mark", "golden\n")
    source.write("/run/volatile", "gone\n")
    copy = lab.clone(source, "copy", Instance(tags={"role": "web"}))
    source.write("/root/mark", "changed\n")
    copy.power_on()
    copy.wait_running()
    assert copy.read("/root/mark") == "golden\n"
    assert not copy.exists("/run/volatile")
    assert copy.address != source.address
    assert metadata(copy, "meta-data/instance-id") == lab.instances["copy"].id
    assert source.run("systemctl is-system-running").stdout == "running\n"


def test_moto_knows_the_instances_that_machines_are_told_to_be(lab: Lab) -> None:
    instance = Instance(tags={"role": "web"}, security_groups=["web"], asg="web-asg")
    lab.aws.launch(instance)
    machine = on(lab, "web1", instance)
    assert metadata(machine, "meta-data/instance-id") == instance.id
    filters = [{"Name": "resource-id", "Values": [instance.id]}]
    tags = lab.aws.call("ec2", "describe_tags", Filters=filters)["Tags"]
    known = {tag["Key"]: tag["Value"] for tag in tags}
    assert known["role"] == "web"
    assert known["aws:autoscaling:groupName"] == "web-asg"
    assert status(machine, lab.aws.endpoint) != "000"
    other = lab.aws.launch(Instance(tags={"role": "db"}))
    assert other.id != instance.id
    lab.aws.reset()
    assert lab.aws.call("ec2", "describe_tags", Filters=filters)["Tags"] == []


def test_packages_come_from_the_lab(lab: Lab) -> None:
    machine = lab.machine("web1", "bare")
    machine.write("/etc/apt/sources.list", lab.packages.add_debs(["nginx-light"], machine.image))
    link = lab.packages.add_wheels("six==1.16.0\n")
    machine.power_on()
    machine.wait_running()
    install = "apt-get -q update && apt-get -q install -y --no-install-recommends nginx-light"
    machine.run(install, timeout=120, check=True)
    assert machine.run("systemctl is-active nginx").stdout == "active\n"
    machine.run("python3 -m venv /root/venv", timeout=120, check=True)
    pip = f"/root/venv/bin/pip install --no-index --find-links {link} --trusted-host pypi.lab six"
    machine.run(pip, timeout=120, check=True)


def test_two_labs_at_once_do_not_meet(tmp_path: Path) -> None:
    with Lab(tmp_path / "one") as one:
        here = on(one, "web1", Instance(id="i-here"))
        with Lab(tmp_path / "other") as other:
            there = on(other, "web1", Instance(id="i-there"))
            assert here.address == there.address
            assert metadata(here, "meta-data/instance-id") == "i-here"
            assert metadata(there, "meta-data/instance-id") == "i-there"
        assert not (tmp_path / "other").exists()
        assert here.run("systemctl is-system-running").stdout == "running\n"


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


def test_the_next_lab_cleans_up_after_one_that_was_killed(lab: Lab, tmp_path: Path) -> None:
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
