"""`make bench`: from PID 1 to the first 200 on ping.html, cold and warm, beside a shell script.

Cold: a fresh disk whose image has our engine and no web server, so that apt installs nginx from a
repository in the lab, git clones two repositories, and uv builds the app's environment. Warm: a reboot.
The other machine has the same image and by_hand.sh instead of our units. They take turns.

    python -m benchmarks.boot [--pairs N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import tables
from tests.lab import roots
from tests.lab.fleet import Fleet, baked, report
from tests.lab.health import Health
from tests.lab.image import cache_folder
from tests.lab.lab import Lab
from tests.lab.machine import Machine

HERE = Path(__file__).parent
INTERVAL = 0.02
"""Seconds between two health checks: the resolution of every figure."""
LIMIT = 180.0
PACKAGES = ["nginx-light"]
FILES = [
    "/etc/apt/apt.conf.d/95pyinfra-solo",
    "/etc/systemd/journald.conf.d/50-pyinfra-solo.conf",
    "/etc/systemd/system/apt-.timer.d/50-pyinfra-solo.conf",
    "/etc/systemd/system/apt-.service.d/50-pyinfra-solo.conf",
    "/etc/systemd/system/shop.service",
    "/etc/nginx/nginx.conf",
]
"""What the role writes; the script copies the very same files."""
APT, RELEASE = "web | nginx is installed", "web | shop is at its release"


@dataclass
class Boot:
    """One boot: seconds from PID 1 to the first 200, and where they went, in order."""

    seconds: float
    parts: dict[str, float]


@dataclass
class Bench:
    """A lab with both kinds of machine."""

    lab: Lab
    fleet: Fleet
    apt_line: str
    boots: dict[str, list[Boot]] = field(default_factory=dict)

    def ours(self, name: str) -> Machine:
        """A machine of ours, off."""
        machine = self.fleet.machine(name)
        machine.write("/etc/apt/sources.list.d/lab.list", self.apt_line)
        return machine

    def by_hand(self, name: str) -> Machine:
        """The same machine with the script, off."""
        machine = self.ours(name)
        machine.run("systemctl -q disable pyinfra-solo.service pyinfra-solo-fence.service", check=True)
        machine.write("/usr/local/sbin/by-hand", (HERE / "by_hand.sh").read_text(), 0o755)
        machine.write("/etc/systemd/system/by-hand.service", (HERE / "by-hand.service").read_text())
        machine.run("systemctl -q enable by-hand.service", check=True)
        return machine

    def harvest(self) -> None:
        """Give the script's repository the files that our role writes."""
        machine = self.ours("model")
        self._until_200(machine, machine.power_on)
        files = {f"files{path}": machine.read(path) for path in FILES}
        files["web.conf"] = f'packages="{" ".join(PACKAGES)} systemd-timesyncd"\n'
        self.lab.git.repository("ops-by-hand").commit(files, "The same machine, by hand")
        self.lab.discard(machine)

    def pair(self, number: int) -> None:
        """One machine of each kind, cold and warm."""
        kinds: list[tuple[str, Callable[[str], Machine], Callable[[Machine], dict[str, float]]]] = [
            ("ours", self.ours, our_parts),
            ("by hand", self.by_hand, script_parts),
        ]
        for kind, make, parts in kinds:
            machine = make(f"{kind[:2]}{number}")
            for state, switch in (("cold", machine.power_on), ("warm", machine.reboot)):
                seconds = self._until_200(machine, switch)
                found = parts(machine)
                found["to the next health check"] = seconds - sum(found.values())
                self.boots.setdefault(f"{kind}, {state}", []).append(Boot(seconds, found))
            self.lab.discard(machine)

    def _until_200(self, machine: Machine, switch: Callable[[], None]) -> float:
        switch()
        health = Health(machine, interval=INTERVAL).start()
        try:
            return health.wait_for_200(LIMIT)
        finally:
            health.stop()


def our_parts(machine: Machine) -> dict[str, float]:
    """By the unit's start and the report: seconds of each station, converge by what is done in it."""
    started = property_of(machine, "pyinfra-solo.service", "ExecMainStartTimestampMonotonic") / 1e6
    found = report(machine)
    stations = {one["name"]: one["seconds"] for one in found["stations"]}
    opened = json.loads(machine.read("/run/pyinfra-solo/statement.json"))["at"] - (
        time.time() - time.monotonic()
    )
    line = sum(stations.values())
    did = {one["name"]: one["seconds"] for one in found["operations"]}
    apt, release, rest = did[APT], did[RELEASE], sum(did.values()) - did[APT] - did[RELEASE]
    return {
        "the init system, to our unit": started - machine.powered_on,
        "python, and between stations": opened - started - line,
        "close gate, identify, prepare, resolve, open gate": line
        - stations["fetch"] - stations["converge"] - stations["judge"],
        "fetch: git": stations["fetch"],
        "converge: to the first operation": stations["converge"] - apt - release - rest,
        "converge: apt": apt,
        "converge: git and uv, the release": release,
        "converge: everything else": rest,
        "judge": stations["judge"],
    }  # fmt: skip


def script_parts(machine: Machine) -> dict[str, float]:
    """By the script's own stamps. /proc/uptime is CLOCK_BOOTTIME, the host's, which does not sleep."""
    stamps = [line.split() for line in machine.read("/run/by-hand.times").splitlines()]
    apart = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    before = machine.powered_on + apart
    parts: dict[str, float] = {}
    for name, at in stamps:
        what = "the init system, to the script" if name == "start" else name
        parts[what] = parts.get(what, 0.0) + float(at) - before
        before = float(at)
    return parts


def property_of(machine: Machine, unit: str, name: str) -> int:
    """A number that systemd knows about a unit."""
    return int(machine.run(["systemctl", "show", "--value", f"--property={name}", unit], check=True).stdout)


def run(pairs: int) -> dict[str, list[Boot]]:
    """One pair that does not count, which fills the host's page cache, then `pairs` that do."""
    with Lab(cache_folder() / "runs" / f"bench-{os.getpid()}") as lab:
        bare = roots.root("bare")
        line = lab.packages.add_debs(PACKAGES, bare)
        bench = Bench(lab, Fleet(lab, baked(bare, lab.folder)), line)
        bench.harvest()
        for number in range(pairs + 1):
            bench.pair(number)
            sys.stderr.write(f"pair {number} of {pairs}: {latest(bench.boots)}\n")
            if number == 0:
                bench.boots.clear()
        return bench.boots


def latest(boots: dict[str, list[Boot]]) -> str:
    return ", ".join(f"{name} {found[-1].seconds:.2f} s" for name, found in boots.items())


def main() -> int:
    """Prints docs/performance.md's tables."""
    parser = argparse.ArgumentParser(description="PID 1 to the first 200, beside a shell script.")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="every boot, for later")
    asked = parser.parse_args()
    boots = run(asked.pairs)
    if asked.json:
        asked.json.write_text(
            json.dumps({k: [vars(b) for b in found] for k, found in boots.items()}, indent=1)
        )
    plain: dict[str, list[tuple[float, dict[str, float]]]] = {
        name: [(one.seconds, one.parts) for one in found] for name, found in boots.items()
    }
    sys.stdout.write(tables.page(plain))
    return 0


if __name__ == "__main__":
    sys.exit(main())
