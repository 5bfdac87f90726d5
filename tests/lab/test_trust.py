"""Only what is signed, of the named ops repo, from the host that is pinned, and inside its own tree, becomes files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.asking import gate_is_open, page, statement
from tests.lab.fleet import NAME, Fleet, report, solo, status
from tests.lab.health import Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.reasons import last_run, tries_no_more, why
from tests.support.repository import signing_key

pytestmark = pytest.mark.lab

ETC = "/etc/pyinfra-solo"
CHECKOUTS = "/var/lib/pyinfra-solo/checkouts"
SIGNED = "trust-signed"
OWNED = "open('/root/owned', 'w').close()\n"
"""A deploy.py that must not run; nor may it be found on any disk."""


@dataclass(frozen=True)
class Refused:
    """Settings of a machine, and a part of the reason for which it is refused."""

    reason: str
    ref: str = "main"
    signers: bool = False
    known_hosts: str | None = None
    """The pinned hosts of an SSH remote; none: the remote is HTTP."""


@dataclass(frozen=True)
class Keys:
    """The key that may sign, one that may not, and the list that says so."""

    right: Path
    wrong: Path
    allowed: str


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Both sign as the same person: only the key tells them apart."""
    folder = tmp_path_factory.mktemp("keys")
    (right, line), (wrong, _) = signing_key(folder, "right"), signing_key(folder, "wrong")
    return Keys(right, wrong, line)


def linked(fleet: Fleet, folder: Path) -> None:
    """A branch whose tree has a link that leads out of it."""
    tree = shutil.copytree(fleet.tree, folder / "ops")
    (tree / "roles/base/files/passwd").symlink_to("../../../../../etc/passwd")
    (tree / "deploy.py").write_text(OWNED)
    fleet.ops.copy_tree(tree, "a way out", branch="trust-link")


def cases(fleet: Fleet, keys: Keys, folder: Path, old_host: str) -> dict[str, Refused]:
    """Each refusal, its branch committed. old_host: a known_hosts with a key that is no longer the host's."""
    signer = "is not signed by a key in /etc/pyinfra-solo/allowed_signers"
    for branch, key, name in (
        ("trust-unsigned", None, NAME),
        ("trust-wrong", keys.wrong, NAME),
        ("trust-other", keys.right, "other"),
    ):
        files = {"deploy.py": OWNED, "ops.toml": f'name = "{name}"\n'}
        fleet.ops.commit(files, "an intruder's", branch=branch, parent=fleet.sha, sign_with=key)
    linked(fleet, folder)
    host = "The host key of ssh://git.lab/srv/git/ops.git is not the pinned one"
    return {
        "unsigned": Refused(signer, ref="trust-unsigned", signers=True),
        "wrong": Refused(signer, ref="trust-wrong", signers=True),
        "other": Refused("is of the ops repo 'other'", ref="trust-other", signers=True),
        "oldkey": Refused(host, known_hosts=old_host),
        "nokey": Refused(
            f"{ETC}/known_hosts, which ops.known_hosts names, has no key for the host of", known_hosts=""
        ),
        "link": Refused(
            "The ops repo's link 'roles/base/files/passwd' leads out of its tree", ref="trust-link"
        ),
    }


def machine_of(
    fleet: Fleet, keys: Keys, name: str, ref: str, *, signers: bool, known_hosts: str | None
) -> BootedMachine:
    """Make a web, off, that trusts the given signers and hosts."""
    ops: dict[str, object] = {"ref": ref}
    files = {}
    if signers:
        ops |= {"allowed_signers": f"{ETC}/allowed_signers", "name": NAME}
        files["allowed_signers"] = keys.allowed
    if known_hosts is not None:
        ops |= {
            "remotes": [fleet.ops.ssh_url],
            "deploy_key": f"{ETC}/key",
            "known_hosts": f"{ETC}/known_hosts",
        }
        files |= {"key": fleet.lab.git.deploy_key.read_text(), "known_hosts": known_hosts}
    machine = fleet.machine(name, settings=fleet.settings(**ops))
    for file, text in files.items():
        machine.write(f"{ETC}/{file}", text, 0o600)
    return machine


@dataclass(frozen=True)
class Booted:
    """The balancer's views of the machines by name, and why those that are refused are."""

    views: dict[str, Health]
    refused: dict[str, Refused]


@pytest.fixture(scope="module")
def booted(lab: Lab, fleet: Fleet, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """All machines of these tests, switched on at once."""
    old = lab.git.known_hosts
    lab.git.swap_host_key()
    table = cases(fleet, keys, tmp_path_factory.mktemp("tree"), old)
    fleet.ops.commit({"note": "1\n"}, "ours", branch=SIGNED, parent=fleet.sha, sign_with=keys.right)
    machines = [
        machine_of(fleet, keys, "signed", SIGNED, signers=True, known_hosts=None),
        machine_of(fleet, keys, "ssh", SIGNED, signers=False, known_hosts=lab.git.known_hosts),
        *(
            machine_of(fleet, keys, name, case.ref, signers=case.signers, known_hosts=case.known_hosts)
            for name, case in table.items()
        ),
    ]
    checkers = {machine.name: lab.health(machine) for machine in machines}
    for machine in machines:
        machine.power_on()
    yield Booted(checkers, table)
    for machine in machines:
        lab.discard(machine)


def in_service(booted: Booted, name: str) -> tuple[BootedMachine, Health]:
    """A machine that has been let in."""
    health = booted.views[name]
    health.wait_for_200()
    return health.machine, health


@pytest.mark.parametrize("name", ["unsigned", "wrong", "other", "oldkey", "nokey", "link"])
def test_an_untrusted_commit_never_reaches_the_disk_and_is_not_retried(booted: Booted, name: str) -> None:
    health, case = booted.views[name], booted.refused[name]
    machine = health.machine
    found = why(machine)
    assert (found["exit_code"], found["station"]) == (11, "fetch")
    assert case.reason in found["error"]
    assert tries_no_more(machine)
    assert last_run(machine) == found["run"]
    assert machine.run(f"find {CHECKOUTS} -mindepth 1").stdout == ""
    assert not machine.exists("/root/owned")
    assert page(machine, "/ping.html").status in (0, 503)
    assert health.timeline
    assert health.first_200() is None, health.story()


def test_a_commit_signed_by_the_right_key_is_served(fleet: Fleet, booted: Booted) -> None:
    machine, _ = in_service(booted, "signed")
    assert statement(machine)["sha"] == fleet.ops.tip(SIGNED)
    assert report(machine)["source"] == fleet.ops.http_url


def test_an_ssh_remote_with_a_deploy_key_brings_a_machine_into_service(fleet: Fleet, booted: Booted) -> None:
    machine, _ = in_service(booted, "ssh")
    assert statement(machine)["sha"] == fleet.ops.tip(SIGNED)
    assert report(machine)["source"] == "ssh://git.lab/srv/git/ops.git"


def must_refuse_a_run(machine: BootedMachine, health: Health, reason: str) -> None:
    """A run by hand ends with exit status 11 and a reason, and the machine serves as before."""
    before, since = statement(machine), health.mark()
    code, _, stderr = solo(machine, "run")
    assert code == 11, stderr
    assert reason in stderr
    assert statement(machine) == before
    found = status(machine)
    assert found["ready"]
    assert reason in found["last_run"]["error"]
    assert found["last_run"]["exit_code"] == 11
    health.wait_for_200()
    assert {check.status for check in health.timeline[since:]} == {200}, health.story(since)


def test_a_machine_in_service_keeps_its_commit_when_the_next_is_unsigned(
    fleet: Fleet, keys: Keys, booted: Booted
) -> None:
    machine, health = in_service(booted, "signed")
    for key in (None, keys.wrong):
        sha = fleet.ops.commit({"deploy.py": OWNED}, "an intruder's", branch=SIGNED, sign_with=key)
        must_refuse_a_run(machine, health, f"Commit {sha[:12]} is not signed")
        assert not machine.exists(f"{CHECKOUTS}/{sha}")
        assert not machine.exists("/root/owned")


def test_a_boot_with_an_unsigned_commit_does_not_use_the_previous_one(booted: Booted) -> None:
    machine, health = in_service(booted, "signed")
    before = last_run(machine)
    machine.reboot()
    since = health.mark()
    found = why(machine, not_by=before)
    assert found["exit_code"] == 11
    assert tries_no_more(machine)
    assert page(machine, "/ping.html").status == 0, "no web server runs before the converge"
    assert health.first_200(since) is None, health.story(since)
    assert not machine.exists("/root/owned")


def test_a_signed_commit_brings_the_machine_back(fleet: Fleet, keys: Keys, booted: Booted) -> None:
    health = booted.views["signed"]
    machine = health.machine
    text = (fleet.tree / "deploy.py").read_text()
    sha = fleet.ops.commit({"deploy.py": text}, "ours again", branch=SIGNED, sign_with=keys.right)
    assert solo(machine, "run")[0] == 0
    health.wait_for_200()
    assert statement(machine)["sha"] == sha


def test_a_machine_in_service_refuses_a_host_with_another_key(lab: Lab, booted: Booted) -> None:
    machine, health = in_service(booted, "ssh")
    lab.git.swap_host_key()
    must_refuse_a_run(machine, health, "is not the pinned one. If it was changed on purpose")
    machine.write(f"{ETC}/known_hosts", lab.git.known_hosts, 0o600)
    code, _, stderr = solo(machine, "run")
    assert code == 0, stderr
    assert gate_is_open(machine)
