"""The tools: how each is installed and started, and how it says what it changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.peers.stage import INSIDE
from pyinfra_solo.protocol import VERSION
from tests.lab.image import ENVIRONMENT

POLICIES = f"{INSIDE}/policies"
MANY = 10000
"""Files in the largest workload, which only the fast are given."""


def number_printed(output: str) -> int | None:
    """What `3 changes` at the end of the output says."""
    found = re.findall(r"(\d+) changes\s*$", output)
    return int(found[-1]) if found else None


def ours_changed(output: str) -> int:
    """How many operations our events call changed."""
    events = [json.loads(line) for line in output.splitlines() if line.startswith('{"event"')]
    return sum(bool(event["changed"]) for event in events if event["event"] == "OperationEnded")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A tool.

    packages: of Debian; script: shell that installs the rest; lock: whether it needs our lock file.
    root: whose installation it shares, instead.
    work, empty: its command for the work, and for nothing at all: words, no shell.
    version: a shell command. most: files in the largest workload that it is given.
    given: its stdin, by the folder of its policy. changed: the changes that its output tells, None when it
    does not say. well: exit statuses of a run that went well.
    """

    name: str
    work: str
    empty: str
    version: str
    packages: str = ""
    script: str = ""
    lock: bool = False
    root: str = ""
    most: int = 1000
    environment: Mapping[str, str] = field(default_factory=dict)
    given: Callable[[str], str] = lambda _folder: ""
    changed: Callable[[str], int | None] = lambda _said: None
    well: Sequence[int] = (0,)
    note: str = ""


def _venv(name: str, *words: str) -> str:
    """A script that makes /opt/NAME; pip compiles what it installs."""
    return f"python3 -m venv /opt/{name} && /opt/{name}/bin/pip install --quiet {' '.join(words)}"


def _request(*, native: bool) -> Callable[[str], str]:
    """The request that converge.py makes of the child, by the folder of the ops repo."""
    asked = {
        "protocol": VERSION, "role": "w", "stage": "bench", "mode": "converge", "drain": "on-change",
        "operation_timeout": 600.0, "options": {"native": native},
    }  # fmt: skip
    return lambda folder: json.dumps(asked | {"root": folder})


ENGINE = {"PYTHONPATH": f"{INSIDE}/engine", "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}
OURS = Contestant(
    name="ours",
    work="/opt/ours/bin/python -m pyinfra_solo.executor",
    empty="/opt/ours/bin/python -m pyinfra_solo.executor",
    version="/opt/ours/bin/python -c 'import pyinfra_solo; print(pyinfra_solo.__version__)'",
    script=_venv("ours", "--require-hashes --requirement /tmp/requirements.lock"),
    lock=True,
    most=MANY,
    environment=ENGINE,
    given=_request(native=True),
    changed=ours_changed,
)

CFENGINE_MODULE = """\
module=/var/lib/cfengine3/modules/packages/apt_get
mkdir -p ${module%/*}
cp /usr/share/cfengine3/masterfiles/modules/packages/vendored/apt_get.mustache $module
chmod 755 $module
"""

SALT = f"--local --id=localhost --file-root={POLICIES}/salt --retcode-passthrough --state-output=changes"

ALL = (
    OURS,
    replace(
        OURS, name="ours-no-native", root="ours", most=1000, given=_request(native=False), note="native off"
    ),
    Contestant(
        name="pyinfra",
        work=f"env --chdir {POLICIES}/ops /opt/ours/bin/pyinfra -y @local deploy.py",
        empty=f"env --chdir {POLICIES}/empty /opt/ours/bin/pyinfra -y @local deploy.py",
        version="/opt/ours/bin/pyinfra --version",
        script=OURS.script,
        lock=True,
        root="ours",
    ),
    Contestant(
        name="floor",
        work=f"/opt/floor/bin/python {POLICIES}/floor.py {POLICIES}/ops/templates/file.j2",
        empty=f"/opt/floor/bin/python {POLICIES}/floor.py",
        version="/opt/floor/bin/python -c 'import jinja2; print(\"Jinja2\", jinja2.__version__)'; python3 --version",
        script=_venv("floor", "jinja2==3.1.6"),
        most=MANY,
        changed=number_printed,
        note="a program for this work alone, Python with Jinja2",
    ),
    Contestant(
        name="shell",
        work=f"sh {POLICIES}/shell.sh",
        empty="sh -c :",
        version="dpkg-query --show --showformat '${Package} ${Version} ' dash coreutils",
        most=MANY,
        changed=number_printed,
        note="a script for this work alone, POSIX sh",
    ),
    Contestant(
        name="cfengine",
        work=f"cf-agent --no-lock --inform --file {POLICIES}/cfengine/work.cf",
        empty=f"cf-agent --no-lock --inform --file {POLICIES}/cfengine/empty.cf",
        version="cf-agent --version",
        packages="cfengine3",
        script=CFENGINE_MODULE,
        most=MANY,
    ),
    Contestant(
        name="puppet",
        work=f"puppet apply --detailed-exitcodes {POLICIES}/puppet/work.pp",
        empty=f"puppet apply --detailed-exitcodes {POLICIES}/puppet/empty.pp",
        version="puppet --version",
        packages="puppet-agent puppet-module-puppetlabs-stdlib",
        well=(0, 2),
    ),
    Contestant(
        name="itamae",
        work=f"itamae local {POLICIES}/itamae/work.rb",
        empty=f"itamae local {POLICIES}/itamae/empty.rb",
        version="itamae version",
        packages="itamae",
    ),
    Contestant(
        name="salt",
        work=f"/opt/salt/bin/salt-call {SALT} state.apply work",
        empty=f"/opt/salt/bin/salt-call {SALT} state.apply empty",
        version="/opt/salt/bin/salt-call --version",
        packages="gcc libc6-dev python3-dev",
        script=_venv("salt", "salt==3008.3"),
    ),
    Contestant(
        name="bundlewrap",
        work=f"env --chdir {POLICIES}/bundlewrap /opt/bundlewrap/bin/bw apply localhost",
        empty=f"env --chdir {POLICIES}/bundlewrap /opt/bundlewrap/bin/bw apply empty",
        version="/opt/bundlewrap/bin/bw --version",
        packages="file",
        script=_venv("bundlewrap", "bundlewrap==5.2.0", "jinja2==3.1.6"),
        environment={"PATH": f"{POLICIES}/bundlewrap/bin:{ENVIRONMENT['PATH']}"},
        note="with stand-ins for ssh and scp, which only start a shell",
    ),
    Contestant(
        name="ansible",
        work=f"/opt/ansible/bin/ansible-playbook --inventory localhost, {POLICIES}/ansible/work.yml",
        empty=f"/opt/ansible/bin/ansible-playbook --inventory localhost, {POLICIES}/ansible/empty.yml",
        version="/opt/ansible/bin/ansible --version",
        packages="python3-apt",
        script=_venv("ansible", "ansible-core==2.19.14"),
        environment={"ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3"},
        note="gathers no facts",
    ),
)
