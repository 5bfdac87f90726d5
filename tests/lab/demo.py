"""`make demo`: one machine boots, is changed by a commit, and reboots, while you watch.

Each statement of the last page was checked: the exit status is 0 only when all were true.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.lab import host, roots
from tests.lab.fleet import Fleet, changed, report, solo, status, systemd_image, wheel_house
from tests.lab.health import Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.lab.watch import BOLD, GREEN, RED, YELLOW, Screen, Watch
from tests.support.cache import cache_folder
from tests.support.programs import LabError

LIMIT = 120.0
"""Seconds that any act may take."""

INTRODUCTION = """\
A machine that configures itself at boot, in a lab on this host: systemd in a container, on a network of
its own, with a metadata service, a git server and a load balancer's health checker. Nothing else is touched."""
VALUES = "inventories/group_data/all.py"
NGINX = "/etc/nginx/nginx.conf"
OLD, NEW = "client_max_body_size 8m;", "client_max_body_size 16m;"


@dataclass
class Demo:
    """One machine of a fleet, and what was claimed about it."""

    lab: Lab
    fleet: Fleet
    machine: BootedMachine
    health: Health
    screen: Screen
    claims: list[tuple[str, bool]] = field(default_factory=list)

    def claim(self, what: str, true: bool) -> None:
        """Record a statement about the machine, and whether it is true."""
        self.claims.append((what, true))

    def boot(self) -> None:
        """Play the first act: from power-on to the first 200."""
        act(self.screen, "1  A machine boots", "Its image knows no role. Its tags say what it is to become.")
        instance = self.lab.instances[self.machine.name]
        tags = "  ".join(f"{key}={value}" for key, value in instance.all_tags().items())
        self.screen.say(f"   {instance.id}   {self.screen.paint(BOLD, tags)}\n")
        self._power(self.machine.power_on, "the first 200 came after the gate was opened, and none before")
        self.screen.say()
        code, output, _ = self._command("status")
        self._show(output)
        found = report(self.machine)
        self.claim("the machine says that it is in service", code == 0)
        self.claim("every check of its role passed", all(one["passed"] for one in found["findings"]))
        self.screen.say(f"\n   the report, /var/lib/pyinfra-solo/last-run.json: {summary(found)}")

    def commit(self) -> None:
        """Play the second act: a commit, its plan, and its run."""
        act(self.screen, "2  A commit", "What would it do here? And then: do it.")
        file = self.fleet.tree / VALUES
        file.write_text(file.read_text() + "web_body_mib = 16\n")
        sha = self.fleet.ops.copy_tree(self.fleet.tree, "Shops upload larger pictures")
        self.screen.say(f"   {self.screen.paint(YELLOW, sha[:12])}  Shops upload larger pictures")
        self.screen.say(f"   {self.screen.paint(GREEN, '+web_body_mib = 16')}   in {VALUES}\n")
        self._plan()
        self.screen.say()
        self._run(sha)

    def _plan(self) -> None:
        mark = self.health.mark()
        code, output, _ = self._command("plan")
        self._show(output)
        self.screen.say(f"   exit status {code}: changes pending, and nothing was touched")
        served = all(check.status == 200 for check in self.health.timeline[mark:])
        self.claim("a plan of a pending change ends with exit status 2", code == 2)
        self.claim("its diff shows the change", f"+    {NEW}" in re.sub(r" +\+", "+", output))
        self.claim("a plan changes nothing", served and OLD in self.machine.read(NGINX))

    def _run(self, sha: str) -> None:
        mark, ended = self.health.mark(), threading.Event()
        result: list[tuple[int, str, str]] = []
        self._prompt("run")
        watch = Watch(self.machine, self.health, self.screen, time.monotonic())

        def go() -> None:
            try:
                result.append(solo(self.machine, "run", timeout=LIMIT))
            finally:
                ended.set()

        threading.Thread(target=go, daemon=True).start()
        watch.until(lambda: ended.is_set() and self.health.timeline[-1].status == 200, LIMIT)
        seen = [check.status for check in self.health.timeline[mark:]]
        self.claim("the run ends with exit status 0", bool(result) and result[0][0] == 0)
        self.claim("the gate closed before the change, and opened after it", 503 in seen and seen[-1] == 200)
        self.claim("nginx has what the commit says", NEW in self.machine.read(NGINX))
        self.claim("the machine vouches for the new commit", report(self.machine)["sha"] == sha)

    def reboot(self) -> None:
        """Play the third act: a reboot with nothing to do."""
        act(
            self.screen,
            "3  A reboot",
            "The gate is on tmpfs: what was true before the reboot does not count.",
        )
        self._power(self.machine.reboot, "and after the reboot, too")
        did = changed(self.machine)
        self.screen.say(f"\n   in service again: {summary(report(self.machine))}")
        self.claim("then nothing was left to change", did == [])
        self.claim("with every check of its role passed anew", status(self.machine)["ready"])

    def _power(self, switch: Callable[[], None], claim: str) -> None:
        switch()
        mark, began = self.health.mark(), time.time()
        watch = Watch(self.machine, self.health, self.screen, self.machine.powered_on)
        self.screen.say(f"{'0.0 s':>8}   {self.screen.paint(BOLD, 'power on')}")
        watch.until(lambda: watch.ended and self.health.first_200(mark) is not None, LIMIT)
        at = self.health.first_200(mark) or 0.0
        opened = float(status(self.machine)["gate"]["since"] or 0)
        # The machine's clock is the host's, as is the health checker's.
        first = time.time() - time.monotonic() + self.machine.powered_on + at
        self.claim(claim, began < opened < first)

    def _command(self, *words: str) -> tuple[int, str, str]:
        self._prompt(*words)
        return solo(self.machine, *words, timeout=LIMIT)

    def _prompt(self, *words: str) -> None:
        shown = self.screen.paint(BOLD, f"pyinfra-solo {' '.join(words)}")
        self.screen.say(f"   {self.machine.name}# {shown}")

    def _show(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            colour = {"+": GREEN, "-": RED}.get(line.strip()[:1], "")
            self.screen.say(f"   {self.screen.paint(colour, line) if colour else line}")


def act(screen: Screen, title: str, about: str) -> None:
    """Show a heading."""
    screen.say(f"\n{screen.paint(BOLD, title)}")
    screen.say(f"   {about}")


def summary(found: dict[str, Any]) -> str:
    """Sum up a report in one line."""
    did = sum(operation["changed"] for operation in found["operations"])
    checks = len(found["findings"])
    return (
        f"{found['outcome']} in {found['seconds']:.1f} s at commit {found['sha'][:12]}, "
        f"{len(found['operations'])} operations, {did} changed, {checks} checks passed"
    )


def play(screen: Screen) -> int:
    """Play all acts. Return 0 when every claim was true."""
    screen.say(INTRODUCTION)
    screen.say(f"\n{screen.paint(BOLD, 'The lab')}")
    with screen.step("wheels of the engine and of an app", "once"):
        wheel_house()
    with screen.step("Debian 12, minimal", "once, about a minute"):
        roots.root("bare")
    with screen.step("an image of it, with nginx", "once"):
        roots.root("systemd")
    with Lab(cache_folder() / "runs" / f"demo-{os.getpid()}") as lab:
        with screen.step("our engine in it, by bootstrap/install.sh", "once"):
            image = systemd_image(lab.folder)
        with screen.step("network, metadata service, git server"):
            fleet = Fleet(lab, image)
            machine = fleet.machine("web-1")
        demo = Demo(lab, fleet, machine, lab.health(machine, interval=0.05), screen)
        demo.boot()
        demo.commit()
        demo.reboot()
        screen.say("\n   the machine and its network are removed")
    return verdict(screen, demo.claims)


def verdict(screen: Screen, claims: list[tuple[str, bool]]) -> int:
    """Show each claim and whether it was true. Return the exit status."""
    screen.say(f"\n{screen.paint(BOLD, 'What was just shown')}")
    for what, true in claims:
        mark = screen.paint(GREEN, "✓") if true else screen.paint(RED, "✗ NOT TRUE:")
        screen.say(f"  {mark} {what}")
    return 0 if all(true for _, true in claims) else 1


def main() -> int:
    """Run the command. Return 0, 1 when a claim was not true, 130 when interrupted."""
    screen = Screen(sys.stdout)
    if reason := host.missing():
        screen.say(screen.paint(RED, reason))
        return 1
    try:
        return play(screen)
    except LabError as error:
        screen.say(screen.paint(RED, f"The demo failed: {error}"))
        return 1
    except KeyboardInterrupt:
        screen.say("Interrupted; the machine and its network are gone.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
