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
from dataclasses import dataclass
from pathlib import Path

from benchmarks import quiet, tables
from tests.lab import roots
from tests.lab.fleet import Fleet, baked, report
from tests.lab.health import Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.cache import cache_folder

HERE = Path(__file__).parent
INTERVAL = 0.02
"""Seconds between two health checks: the resolution of every figure."""
LIMIT = 180.0
PATIENCE = 30.0
"""Seconds to wait, before each boot, for a quiet host."""
PACKAGES = ["nginx-light", "unattended-upgrades"]
FILES = [
    "/etc/apt/apt.conf.d/95pyinfra-solo",
    "/etc/systemd/journald.conf.d/50-pyinfra-solo.conf",
    "/etc/systemd/system/apt-.timer.d/50-pyinfra-solo.conf",
    "/etc/systemd/system/apt-.service.d/50-pyinfra-solo.conf",
    "/etc/systemd/system/shop.service",
    "/etc/nginx/nginx.conf",
]
"""What the role writes; the script copies the very same files."""
APT = (
    "base | systemd-timesyncd and unattended-upgrades are installed",
    "web | nginx is installed",
)
RELEASE = "web | shop is at its release"


@dataclass
class Boot:
    """One boot: seconds from PID 1 to the first 200, where they went, the machine's CPU seconds,
    and the cores that others took meanwhile."""

    seconds: float
    parts: dict[str, float]
    cpu: float
    others: float


@dataclass
class Bench:
    """A lab with both kinds of machine."""

    lab: Lab
    fleet: Fleet
    apt_line: str

    def ours(self, name: str) -> BootedMachine:
        """A machine of ours, off."""
        machine = self.fleet.machine(name)
        machine.write("/etc/apt/sources.list.d/lab.list", self.apt_line)
        return machine

    def by_hand(self, name: str) -> BootedMachine:
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
        self._until_200(machine)
        files = {f"files{path}": machine.read(path) for path in FILES}
        files["web.conf"] = f'packages="{" ".join(PACKAGES)} systemd-timesyncd"\n'
        self.lab.git.repository("ops-by-hand").commit(files, "The same machine, by hand")
        self.lab.discard(machine)

    def pair(self, number: int) -> dict[str, Boot]:
        """One machine of each kind, cold and warm."""
        kinds: list[
            tuple[str, Callable[[str], BootedMachine], Callable[[BootedMachine], dict[str, float]]]
        ] = [
            ("ours", self.ours, our_parts),
            ("by hand", self.by_hand, script_parts),
        ]
        boots = {}
        for kind, make, parts in kinds:
            machine = make(f"{kind[:2]}{number}")
            for state in ("cold", "warm"):
                if state == "warm":
                    machine.power_off()
                quiet.wait(PATIENCE)
                others = quiet.Others(machine)
                seconds = self._until_200(machine)
                boot = Boot(seconds, {}, quiet.of(machine), others.cores())
                boots[f"{kind}, {state}"] = boot
                boot.parts = parts(machine)
                boot.parts["to the next health check"] = seconds - sum(boot.parts.values())
            self.lab.discard(machine)
        return boots

    def pairs(self, wanted: int) -> dict[str, list[Boot]]:
        """`wanted` pairs; one that others have disturbed is made anew, up to three times as many in all."""
        found: dict[str, list[Boot]] = {}
        self.pair(0)
        for number in range(1, 3 * wanted + 1):
            boots = self.pair(number)
            disturbed = max(boot.others for boot in boots.values()) > quiet.IDLE
            words = ", ".join(
                f"{name} {boot.seconds:.2f} s ({boot.others:.2f})" for name, boot in boots.items()
            )
            sys.stderr.write(f"{'disturbed' if disturbed else 'counts'}: {words}\n")
            if not disturbed or 3 * wanted - number < wanted - len(found.get("ours, cold", [])):
                for name, boot in boots.items():
                    found.setdefault(name, []).append(boot)
            if len(found.get("ours, cold", [])) == wanted:
                break
        return found

    def _until_200(self, machine: BootedMachine) -> float:
        machine.power_on()
        health = Health(machine, interval=INTERVAL).start()
        try:
            return health.wait_for_200(LIMIT)
        finally:
            health.stop()


def our_parts(machine: BootedMachine) -> dict[str, float]:
    """By the unit's start and the report: seconds of each station, converge by what is done in it."""
    started = property_of(machine, "pyinfra-solo.service", "ExecMainStartTimestampMonotonic") / 1e6
    found = report(machine)
    stations = {one["name"]: one["seconds"] for one in found["stations"]}
    opened = json.loads(machine.read("/run/pyinfra-solo/statement.json"))["at"] - (
        time.time() - time.monotonic()
    )
    line = sum(stations.values())
    did = {one["name"]: one["seconds"] for one in found["operations"]}
    apt, release = sum(did[name] for name in APT), did[RELEASE]
    rest = sum(did.values()) - apt - release
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


def script_parts(machine: BootedMachine) -> dict[str, float]:
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


def property_of(machine: BootedMachine, unit: str, name: str) -> int:
    """A number that systemd knows about a unit."""
    return int(machine.run(["systemctl", "show", "--value", f"--property={name}", unit], check=True).stdout)


def run(pairs: int) -> dict[str, list[Boot]]:
    """`pairs` pairs, after one that does not count: it fills the host's page cache."""
    with Lab(cache_folder() / "runs" / f"bench-{os.getpid()}") as lab:
        bare = roots.root("bare")
        line = lab.packages.add_debs(PACKAGES, bare)
        bench = Bench(lab, Fleet(lab, baked(bare, lab.folder)), line)
        bench.harvest()
        return bench.pairs(pairs)


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
    plain: tables.Boots = {
        name: [(one.seconds, one.cpu, one.parts) for one in found] for name, found in boots.items()
    }
    others = [boot.others for found in boots.values() for boot in found]
    sys.stdout.write(f"Others took {tables.spread(others)} cores meanwhile.\n\n{tables.page(plain)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
