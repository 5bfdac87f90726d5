"""The README's commands do what it says: those of make on a bare Debian 12, the others on a machine in service.

`make demo` is run whole. `make test` inside `make test` would never end: of the unit and lab tests a part is
run, chosen by the Makefile's variables; linters are run whole. All of it, on a bare Debian and without this
host's cache: `python -m tests.lab.clean --no-cache make test`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.clean import Clean, place
from tests.lab.fleet import Fleet
from tests.support.programs import run

pytestmark = pytest.mark.lab

HERE = Path(__file__).parents[2]
README = HERE / "README.md"
A_PART = (
    "UNIT='tests/test_gate.py tests/stations/test_fetch.py tests/cli/test_init.py tests/native/test_facts.py' "
    "LAB='tests/lab/test_lab_itself.py -k changed_host_key'"
)
LONG = 1800.0
"""Seconds in which either must have ended, packages and all: a bound, not a measure."""


@pytest.fixture
def clean() -> Iterator[Clean]:
    """A Debian in which nothing was ever run. The lab's roots come from this host's cache."""
    with Clean(place()) as made:
        yield made


def fences(text: str) -> list[str]:
    """Return the shell commands of a document, a fence each."""
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(start: str) -> list[str]:
    """List the commands in README.md's fences that begin with `start`, without their comments."""
    lines = (
        line.partition("  #")[0].strip()
        for fence in fences(README.read_text())
        for line in fence.splitlines()
    )
    return [line for line in lines if line.startswith(start)]


def test_the_readme_has_two_commands_for_a_bare_debian() -> None:
    assert commands("make ") == ["make demo", "make test"]


def test_make_demo_works_on_a_bare_debian(clean: Clean) -> None:
    output = clean.run("make demo", LONG).stdout
    claims = output.partition("What was just shown")[2].strip().splitlines()
    assert claims
    assert all(line.strip().startswith("✓") for line in claims)
    assert "\x1b" not in output
    assert output.startswith("make demo: about ")
    costs, _, prepared = output.partition("prepare: apt-get installs on this host")
    assert "to remove them: rm -rf" in costs
    assert "prepare: to remove them later: apt-get purge --auto-remove " in prepared


def test_make_test_works_on_a_bare_debian(clean: Clean) -> None:
    output = clean.run(f"make test {A_PART}", LONG).stdout
    assert re.search(r"^=+ 1 passed, \d+ deselected", output, re.MULTILINE), output[-3000:]


IDENTITY = "\n".join(
    f"export GIT_{who}_NAME=a GIT_{who}_EMAIL=a@example.com" for who in ("AUTHOR", "COMMITTER")
)
SETTINGS = '[machine]\nec2 = "no"\nrole = "base"\nstage = "staging"\n'


def test_start_and_the_new_repositorys_commands_work_on_a_bare_debian(clean: Clean) -> None:
    """From the clone to a plan, with the editor that changes nothing; then all that the new README says to run."""
    start = README.read_text().partition("\n## Start\n")[2].partition("\n## ")[0]
    packages = re.search(r"`(apt-get install [^`]*)`", start)
    assert packages
    install, new, plan, _image = fences(start)
    repository = fences((HERE / "bootstrap/pyinfra_solo/cli/new_repo/README.md").read_text())
    script = [
        f"apt-get -qq update && {packages[1]}", IDENTITY, "export EDITOR=true", install, new,
        plan.strip() + " || [ $? = 2 ]", "echo '== a plan'", "export PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        repository[0], repository[1].strip().replace("    #", " || [ $? = 2 ]    #"), "echo '== a change'",
        f"mkdir -p /etc/pyinfra-solo && printf '%s' '{SETTINGS}' >/etc/pyinfra-solo/config.toml",
        "pyinfra @local deploy.py --dry", "echo '== a converge'",
    ]  # fmt: skip
    output = clean.run("set -e\n" + "\n".join(script), LONG).stdout
    parts = re.split(r"^== (.*)\n", output, flags=re.MULTILINE)
    assert parts[1::2] == ["a plan", "a change", "a converge"]
    assert re.search(r"^\d+ operations would change this machine", parts[0], re.MULTILINE)
    assert " passed" in parts[2]
    assert "deploy can log in" in parts[4]


def test_make_test_runs_every_part_and_fails_when_one_does() -> None:
    done = run(["make", "-C", README.parent, "test", "PARTS=no-such-part help"], check=False)
    assert done.code != 0
    assert "make test: failed: no-such-part" in done.stderr
    assert "List the targets" in done.stdout


def test_the_readmes_commands_work_on_a_machine_in_service(fleet: Fleet) -> None:
    machine = fleet.machine("readme1")
    fleet.in_service(machine)
    machine.run(f"git clone -q {fleet.ops.http_url} /root/ops", check=True)
    # A machine's engine has no skeleton to init from: tests/cli/test_init.py.
    shown = [line for line in commands("pyinfra") if " init " not in line]
    assert {"pyinfra-solo status", "pyinfra-solo run", "pyinfra @local deploy.py"} <= {*shown}
    for command in shown:
        yes = " -y" if command.startswith("pyinfra @local") else ""
        done = machine.run(f"cd /root/ops && {command}{yes}", timeout=120)
        assert done.ok or (" plan" in command and done.code == 2), f"{command}: {done.stdout}{done.stderr}"
