"""The roles that we ship, as declarations."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pyinfra_solo.errors import DataError
from pyinfra_solo.ops_repo import names
from pyinfra_solo.ops_repo import roles as role
from pyinfra_solo.ops_repo import values as data
from tests.support.machine import ENGINE, REPOSITORY

ROLES = names.roles(REPOSITORY)
STAGES = names.stages(REPOSITORY)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Roles and inventories, to be made wrong."""
    for folder in ("roles", "inventories"):
        subprocess.run(["cp", "-r", REPOSITORY / folder, tmp_path], check=True)
    return tmp_path


@pytest.mark.parametrize("name", ROLES)
def test_importing_a_role_starts_connects_and_writes_nothing(name: str) -> None:
    watch = (
        "import sys\n"
        "import pyinfra.operations.apt, pyinfra.operations.files, pyinfra.operations.systemd\n"
        "touched = []\n"
        "def watch(event, args):\n"
        "    if event in ('subprocess.Popen', 'os.posix_spawn', 'os.fork', 'socket.connect', 'os.mkdir', 'os.remove', 'os.rename'):\n"
        "        touched.append(event)\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+'):\n"
        "        touched.append(args[0])\n"
        "sys.addaudithook(watch)\n"
        f"import roles.{name}\n"
        "print(touched)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", watch],
        env={"PYTHONPATH": f"{ENGINE}:{REPOSITORY}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ROLES)
def test_every_role_has_its_values_in_every_stage(name: str, stage: str) -> None:
    roles = role.load(REPOSITORY)
    values = data.layered(REPOSITORY, stage, {}, roles)
    for one in role.with_needs(name, roles):
        bound = data.bind(one, values)
        for check in one.healthy(bound):
            assert check.within > 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("web_port = 'eighty'", r"inventories/group_data/staging\.py: 'web_port' of the role 'web'"),
        ("web_port = 70000", r"inventories/group_data/staging\.py: 'web_port' of the role 'web'"),
        ("app_workers = 0", r"inventories/group_data/staging\.py: 'app_workers' of the role 'web'"),
        (
            "web_prot = 80",
            r"inventories/group_data/staging\.py: no role has a value 'web_prot'\. Did you mean",
        ),
        ("time_sync = 'ntpd'", r"inventories/group_data/staging\.py: 'time_sync' of the role 'base'"),
        ("deploy_keys = 'ssh-ed25519 AAAA'", r"inventories/group_data/staging\.py: 'deploy_keys'"),
    ],
)
def test_a_wrong_value_names_the_file_that_it_stands_in(copied: Path, line: str, said: str) -> None:
    with (copied / "inventories/group_data/staging.py").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(DataError, match=said):
        data.layered(copied, "staging", {}, role.load(REPOSITORY))


def test_each_security_group_names_a_role_that_there_is() -> None:
    groups = tomllib.loads((REPOSITORY / "roles/roles.toml").read_text())["security_groups"]
    assert set(groups.values()) <= set(ROLES)


@pytest.mark.parametrize("stage", STAGES)
def test_an_inventory_lists_no_machine_of_its_own(stage: str) -> None:
    scope: dict[str, object] = {}
    exec((REPOSITORY / f"inventories/{stage}.py").read_text(), scope)  # noqa: S102 - as pyinfra reads it
    assert scope["hosts"] == []
