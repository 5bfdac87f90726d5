"""Read a machine's state: its health file, its gate, its files, and when its gate was opened."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

from tests.lab.fleet import GATE, Fleet
from tests.lab.health import Check, Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.instance import Instance
from tests.support.programs import wait_for

STATEMENT = "/run/pyinfra-solo/statement.json"
SLOW = """server.shell(name="a slow thing is done", commands=["sh -c 'sleep {seconds}; : slow-thing'"])"""


@dataclass(frozen=True)
class Page:
    """An answer: status 0 is none; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: str


def page(machine: BootedMachine, path: str, *, host: str = "") -> Page:
    """Ask the machine's port 80, from the machine itself."""
    header = ["-H", f"Host: {host}"] if host else []
    answer = machine.run(["curl", "-s", "-i", "-m", "5", *header, f"http://127.0.0.1{path}"], timeout=15)
    if not answer.ok:
        return Page(0, {}, "")
    head, _, body = answer.stdout.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.splitlines()
    pairs = (line.partition(": ") for line in lines)
    return Page(int(first.split()[1]), {name.lower(): value for name, _, value in pairs}, body)


def statement(machine: BootedMachine) -> dict[str, Any]:
    """Read the statement beside the open gate."""
    found: dict[str, Any] = json.loads(machine.read(STATEMENT))
    return found


def opened_at(machine: BootedMachine) -> float:
    """Return when the gate was opened, in seconds since power-on, as `Health` counts them."""
    at: float = statement(machine)["at"]
    return at - time.time() + time.monotonic() - machine.powered_on


def before_opening(machine: BootedMachine, health: Health, since: int = 0) -> list[Check]:
    """Return the checks that were answered before the machine's gate was opened in this boot."""
    opened = opened_at(machine)
    return [check for check in health.timeline[since:] if check.at < opened]


def gate_file(machine: BootedMachine) -> str:
    """Return inode and mtime of the open gate's file; '' when it is closed."""
    return machine.run(["stat", "-c", "%i %.9Y", GATE]).stdout


def gate_is_open(machine: BootedMachine) -> bool:
    """Tell whether the file exists that a balancer asks for."""
    return machine.exists(GATE)


def listing(machine: BootedMachine, *folders: str, leave_out: str = "/\\.git/") -> dict[str, str]:
    """Map each path below the folders to its type, mode, owner and digest or target.

    leave_out: a regular expression of paths that do not count.
    """
    made = machine.run(["find", *folders, "-xdev", "-printf", "%p\t%y %m %u %g %l\n"], check=True).stdout
    sums = machine.run(["find", *folders, "-xdev", "-type", "f", "-exec", "sha256sum", "{}", "+"], check=True)
    digests = {line[66:]: line[:64] for line in sums.stdout.splitlines()}
    pairs = (line.split("\t", 1) for line in made.splitlines())
    return {path: f"{what}{digests.get(path, '')}" for path, what in pairs if not re.search(leave_out, path)}


def ordering_problems(machine: BootedMachine) -> list[str]:
    """Return systemd's messages about cycles of units that it breaks by dropping a job."""
    words = ("ordering cycle", "deleted to break", "dropped")
    lines = machine.run("journalctl -b -q --no-pager _PID=1").stdout.splitlines()
    return [line for line in lines if any(word in line.lower() for word in words)]


def drop_in(machine: BootedMachine, text: str, unit: str = "pyinfra-solo.service") -> None:
    """Add lines to a unit of a machine that is off."""
    machine.write(f"/etc/systemd/system/{unit}.d/90-lab.conf", text)


def ops_with(
    fleet: Fleet, branch: str, files: dict[str, str | bytes | None], message: str = "a change"
) -> str:
    """A commit on a branch of its own, made from main when it is new; the new commit's id."""
    parent = fleet.ops.tip(branch) or fleet.sha
    return fleet.ops.commit(files, message, branch=branch, parent=parent)


def deploy_with(fleet: Fleet, *lines: str) -> str:
    """The ops repo's deploy.py with operations of its own before the gate."""
    text = (fleet.tree / "deploy.py").read_text()
    imports = "from pyinfra.operations import files, server"
    return text.replace("gate()\n", "\n".join([imports, *lines, "", "gate()", ""]))


def answer_everything(machine: BootedMachine) -> None:
    """Give a machine that is off an image's site that is 200 on every path, as of a single-page app."""
    machine.write("/var/www/html/index.html", "of the image\n")
    site = "server { listen 80 default_server; root /var/www/html; location / { try_files $uri /index.html; } }\n"
    machine.write("/etc/nginx/sites-available/default", site)


def in_service_without_app(ping: Health, app: Health, since: tuple[int, int]) -> list[Check]:
    """Return the polls that found the gate open after one had found the app gone."""
    gone = next((check.at for check in app.timeline[since[1] :] if check.status != 200), None)
    assert gone is not None, "the app was gone at some time"
    return [check for check in ping.timeline[since[0] :] if check.status == 200 and check.at > gone]


def polled_while_going_down(lab: Lab, machine: BootedMachine) -> list[Check]:
    """Shut a machine in service down, and return what `in_service_without_app` finds."""
    ping, app = (lab.health(machine, path, interval=0.05) for path in ("/ping.html", "/"))
    for health in (ping, app):
        health.wait_for_200()
    since = ping.mark(), app.mark()
    machine.run("poweroff", timeout=10)
    wait_for(f"{machine.name} off", lambda: not machine.is_on, timeout=60)
    for health in (ping, app):
        health.stop()
    return in_service_without_app(ping, app, since)


def web(**more: Any) -> Instance:
    """Make an instance that its tags make a web of production."""
    return Instance(tags={"Role": "web", "Stage": "production"}, **more)
