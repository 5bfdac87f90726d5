"""A commit that is broken in any way: its own exit status, a closed gate, the reason; and a good one follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.lab.asking import drop_in, gate_file, gate_is_open, ops_with, page, statement
from tests.lab.fleet import HERE, Fleet, report, solo, status
from tests.lab.health import Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.reasons import SOON, last_run, tries_no_more, why
from tests.support.programs import wait_for
from tests.support.wheels import ZERO, wheel

pytestmark = pytest.mark.lab

BRANCH = "broken"
DROP_IN = "[Service]\nRestartSec=1s\nExecStartPre=\n"
PREPARE = '\n[prepare]\nwheels = ["http://pypi.lab/broken/"]\n'
PACKAGE = "broken"

SITE = """\
server {
    listen 80 default_server;
    location = /ping.html { root /run/pyinfra-solo/gate; try_files /ping.html =503; etag off; }
}
"""
ROLE = f'''\
"""small: a page in front of the gate, and a note."""

from dataclasses import dataclass
from io import StringIO

from pyinfra.operations import files, server, systemd

from pyinfra_solo.checks import command
from pyinfra_solo.role import role

SITE = """\\
{SITE}"""


@dataclass(frozen=True, kw_only=True)
class Small:
    small_words: int = 1


def healthy(data):
    return [command("test -s /etc/small-note", within=0.5)]


@role(data=Small, healthy=healthy)
def small(data):
    files.template(
        name="a note is written", src="roles/small/templates/note.j2", dest="/etc/small-note", words=data.small_words
    )
    files.link(name="nginx has no default site", path="/etc/nginx/sites-enabled/default", present=False)
    site = files.put(name="nginx shows the gate", src=StringIO(SITE), dest="/etc/nginx/conf.d/small.conf")
    systemd.service(name="nginx is reloaded", service="nginx", reloaded=True, _if=site.did_change)
'''

INIT = "roles/small/__init__.py"
NOTE = "roles/small/templates/note.j2"
STAGE = "inventories/group_data/production.py"
DEPLOY, LOCK = "deploy.py", "requirements.lock"
GOOD = {
    DEPLOY: (HERE / DEPLOY).read_text(),
    LOCK: (HERE / LOCK).read_text(),
    INIT: ROLE,
    NOTE: "{{ words }} words\n",
    STAGE: '"""Values of production."""\n',
}
"""The files of a commit that is right; a broken one has others in their place."""


def with_text(path: str, old: str, new: str) -> dict[str, str]:
    """One of the good files with something else in one place."""
    assert GOOD[path].count(old) == 1, old
    return {path: GOOD[path].replace(old, new)}


@dataclass(frozen=True)
class Broken:
    """A commit's files, the exit status and station that it leads to, and words of the reason."""

    code: int
    station: str
    reason: str
    files: Mapping[str, str]
    back: str = ""
    """What brings the machine back after a good commit: run or reboot; empty: its unit does."""


FAILING = 'server.shell(name="the leaf is raked", commands=["echo there is no rake >&2; exit 3"])'
TABLE = {
    "a syntax error in deploy.py": Broken(
        1,
        "converge",
        "deploy.py failed: invalid syntax (deploy.py:",
        {DEPLOY: GOOD[DEPLOY] + "for role in:\n"},
    ),
    "a syntax error in a role": Broken(
        1, "converge", "roles/small/__init__.py cannot be loaded: ", {INIT: GOOD[INIT] + "def (:\n"}
    ),
    "an unknown module in a role": Broken(
        1, "converge", "No module named 'leafblower'", {INIT: "import leafblower\n" + GOOD[INIT]}
    ),
    "an operation that fails": Broken(
        1,
        "converge",
        "The operation 'small | the leaf is raked' failed: there is no rake",
        {INIT: f"{GOOD[INIT]}    {FAILING}\n"},
    ),
    "an undefined variable in a template": Broken(
        13, "converge", "'unheard_of' is undefined", {NOTE: "{{ unheard_of }}\n"}, back="run"
    ),
    "a misspelt value": Broken(
        13,
        "converge",
        f"{STAGE}: no role has a value 'smal_words'. Did you mean 'small_words'?",
        {STAGE: "smal_words = 2\n"},
        back="reboot",
    ),
    "a value of another type": Broken(
        13,
        "converge",
        f"{STAGE}: 'small_words' of the role 'small': Expected `int`, got `str`",
        {STAGE: 'small_words = "two"\n'},
        back="run",
    ),
    "a check that never passes": Broken(
        30,
        "judge",
        "the role's checks failed: command test -e /no-leaf: exit status 1",
        with_text(INIT, "test -s /etc/small-note", "test -e /no-leaf"),
    ),
    "a lock file without hashes": Broken(
        13, "prepare", f"{PACKAGE} has no hash", {LOCK: f"{GOOD[LOCK]}{PACKAGE}==1.0\n"}, back="run"
    ),
    "a lock file with a wrong hash": Broken(
        11,
        "prepare",
        f"{PACKAGE}==1.0 is not what requirements.lock was locked to",
        {LOCK: f"{GOOD[LOCK]}{PACKAGE}==1.0 --hash=sha256:{ZERO}\n"},
        back="run",
    ),
}


@pytest.fixture(scope="module")
def served(lab: Lab, fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Health]:
    """A machine of the small role, in service; its unit tries again after a second."""
    lab.packages.wheels[PACKAGE] = tmp_path_factory.mktemp("wheels")
    wheel(lab.packages.wheels[PACKAGE], PACKAGE)
    ops_with(fleet, BRANCH, {**GOOD})
    machine = fleet.machine(
        "broken1",
        tags={"Role": "small", "Stage": "production"},
        settings=fleet.settings(ref=BRANCH) + PREPARE,
    )
    drop_in(machine, DROP_IN)
    yield fleet.in_service(machine)
    lab.discard(machine)


@pytest.fixture
def broken1(fleet: Fleet, served: Health) -> BootedMachine:
    """The machine, in service at a good commit."""
    mended(fleet)
    if not gate_is_open(served.machine):
        solo(served.machine, "run")
    served.wait_for_200()
    return served.machine


def mended(fleet: Fleet) -> str:
    """A good commit on top of whatever is there."""
    return ops_with(fleet, BRANCH, {**GOOD}, "as it should be")


def booted(machine: BootedMachine, health: Health) -> int:
    """Begin a boot run as after a boot, at which the fence closes the gate: then the balancer must not see a 200."""
    machine.run("/opt/pyinfra-solo/bin/pyinfra-solo-fence close; systemctl restart pyinfra-solo", check=True)
    health.wait_until_not_200()
    return health.mark()


@pytest.mark.parametrize("kind", TABLE)
def test_a_broken_commit_keeps_the_gate_closed_until_a_good_one_follows(
    fleet: Fleet, served: Health, broken1: BootedMachine, kind: str
) -> None:
    case, before, skip = TABLE[kind], last_run(broken1), len(broken1.journal("pyinfra-solo", boot=True))
    sha = ops_with(fleet, BRANCH, {**case.files}, kind)
    since = booted(broken1, served)
    found = why(broken1, not_by=before, skip=skip)
    assert (found["exit_code"], found["station"], found["sha"]) == (case.code, case.station, sha), found[
        "error"
    ]
    assert case.reason in found["error"]
    assert page(broken1, "/ping.html").status in (0, 503)
    if case.back:
        assert tries_no_more(broken1)
    assert served.first_200(since) is None, served.story(since)
    good = mended(fleet)
    bring_back(broken1, case.back)
    served.wait_for_200()
    assert statement(broken1)["sha"] == good


def bring_back(machine: BootedMachine, how: str) -> None:
    """Do what an operator has to do after a good commit; nothing where the unit retries."""
    if how == "run":
        code, _, stderr = solo(machine, "run")
        assert code == 0, stderr
    elif how == "reboot":
        machine.reboot()
    else:
        wait_for("a try that goes well", lambda: gate_is_open(machine), SOON)
        assert report(machine)["command"] == "boot"


@pytest.mark.parametrize("kind", ["a syntax error in deploy.py", "a misspelt value"])
def test_a_run_that_fails_before_a_change_leaves_the_machine_in_service(
    fleet: Fleet, served: Health, broken1: BootedMachine, kind: str
) -> None:
    case, vouched, gate, since = TABLE[kind], statement(broken1), gate_file(broken1), served.mark()
    ops_with(fleet, BRANCH, {**case.files}, kind)
    code, _, stderr = solo(broken1, "run")
    assert code == case.code, stderr
    assert case.reason in stderr
    assert (statement(broken1), gate_file(broken1)) == (vouched, gate)
    found = status(broken1)
    assert found["ready"]
    assert case.reason in found["last_run"]["error"]
    served.wait_for_200()
    assert {check.status for check in served.timeline[since:]} == {200}, served.story(since)


TAKES_OUT = {
    "an operation that fails": {NOTE: "other {{ words }} words\n"},
    "a check that never passes": {},
}
"""Other files that such a commit changes; a failing check takes a machine out without any."""


@pytest.mark.parametrize("kind", TAKES_OUT)
def test_a_run_that_fails_after_a_change_takes_the_machine_out(
    fleet: Fleet, served: Health, broken1: BootedMachine, kind: str
) -> None:
    case = TABLE[kind]
    ops_with(fleet, BRANCH, {**case.files, **TAKES_OUT[kind]}, kind)
    code, _, stderr = solo(broken1, "run")
    assert code == case.code, stderr
    assert not gate_is_open(broken1)
    served.wait_until_not_200()
    since = served.mark()
    found = status(broken1)
    assert case.reason in found["gate"]["reason"]
    assert found["gate"]["reason"] == found["last_run"]["error"]
    assert page(broken1, "/ping.html").status == 503
    assert served.first_200(since) is None, served.story(since)
    mended(fleet)
    assert solo(broken1, "run")[0] == 0
    served.wait_for_200()
