"""Cut the power, or kill the run, at chosen moments of a boot, and record what becomes of the machine.

A moment is seen from outside, in the files that a run writes anyway, within a few milliseconds.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.lab.asking import before_opening, listing
from tests.lab.cgroup import unified
from tests.lab.fleet import GATE, Fleet, report, wait_for_exit
from tests.lab.health import Check, Health
from tests.lab.machine import BootedMachine
from tests.support.programs import LabError

LINE = ("close gate", "identify", "fetch", "prepare", "resolve", "converge", "judge", "open gate")
STATE = "/var/lib/pyinfra-solo"
MANAGED = ("/etc", "/srv", "/home", f"{STATE}/checkouts", f"{STATE}/runtimes", f"{STATE}/good")
"""Folders in which the engine and the roles write."""
OTHERS = r"/__pycache__|/etc/(hostname|machine-id|g?shadow)$|/repo\.git/|-$"
"""Paths below MANAGED that differ between machines: names, times of compiling and of passwords, backups."""
LOCK_FILE = re.compile(r"(?:passwd|group|shadow|gshadow|subuid|subgid)\.(\d+)")
"""The file that a program of shadow(5)'s package makes before it links it to the lock: NAME.PID, holding its
PID and a NUL (lib/commonio.c). Killed in between, it leaves the file, and nothing ever removes it."""
ACCOUNT_TOOLS = ("useradd", "usermod", "groupadd", "groupmod")
LIMIT = 90.0
"""Seconds in which any moment must come, and any machine be ready: a bound, not a measure."""
AT_ONCE = 3
INTERVAL = 0.1


class Seen:
    """Progress of a machine's boot run, read from the files that it has written since power-on."""

    def __init__(self, machine: BootedMachine) -> None:
        self._machine = machine
        self._boot = machine.inside("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._report: dict[str, Any] = {}
        self._stamp: tuple[int, int] | None = None

    def _read(self) -> dict[str, Any]:
        path = self._machine.inside(f"{STATE}/last-run.json")
        with suppress(OSError, ValueError):
            stat = path.stat()
            if (stat.st_ino, stat.st_mtime_ns) != self._stamp:
                found = json.loads(path.read_text())
                self._stamp = (stat.st_ino, stat.st_mtime_ns)
                self._report = found if found["boot_id"] == self._boot else {}
        return self._report

    @property
    def station(self) -> str:
        """The run's station; '' before it has begun."""
        return str(self._read().get("station") or "")

    @property
    def operation(self) -> int:
        """The number of the operation that last began to wait for something or to change it; 0 before the first."""
        path = self._machine.inside(f"{STATE}/reports/{self._read().get('run')}.events")
        with suppress(OSError):
            numbers = re.findall(
                rb'^\{"event":"OperationStarted","number":(\d+),', path.read_bytes(), re.MULTILINE
            )
            return int(numbers[-1]) if numbers else 0
        return 0

    @property
    def open(self) -> bool:
        """True while the gate is open."""
        return self._machine.inside(GATE).exists()

    def there(self, pattern: str) -> bool:
        """Tell whether a path on the machine matches `pattern`, which has no slash in front."""
        with suppress(OSError):
            return next(self._machine.inside("/").glob(pattern), None) is not None
        return False


def cut(machine: BootedMachine) -> None:
    """Cut the power, and restore it."""
    machine.power_cut()
    machine.power_on()


def kill_run(machine: BootedMachine) -> None:
    """Send SIGKILL to the boot run, as the kernel does when memory is short; its unit restarts it.

    The machine is frozen meanwhile, or the run would go on while its process is searched for.
    """
    machine.freeze()
    try:
        group = unified() / "pyinfra-solo-lab" / f"{machine.network.name}.{machine.name}"
        file = next(group.rglob("pyinfra-solo.service/cgroup.procs"))
        os.kill(min(int(pid) for pid in file.read_text().split()), signal.SIGKILL)
    finally:
        machine.thaw()


@dataclass(frozen=True)
class Strike:
    """A cut or kill (`blow`) `pause` seconds after `shows` is true, in a boot to the tip of `branch`."""

    name: str
    shows: Callable[[Seen], bool]
    pause: float = 0.0
    branch: str = "main"
    blow: Callable[[BootedMachine], None] = cut

    def __str__(self) -> str:
        return self.name

    def wait(self, machine: BootedMachine) -> None:
        """Wait for the moment. Raises LabError when it does not come."""
        seen, end = Seen(machine), time.monotonic() + LIMIT
        while not self.shows(seen):
            if time.monotonic() > end:
                raise LabError(f"{self.name} never came:\n{machine.journal('pyinfra-solo')[-3000:]}")
            time.sleep(0.0005)
        time.sleep(self.pause)


@dataclass(frozen=True)
class Life:
    """Outcome of a strike. Each `early` check was answered 200 while the machine was not converged."""

    where: str
    opened: bool
    early: tuple[Check, ...]
    tree: dict[str, str]
    empty: frozenset[str]
    run: dict[str, Any]
    broken_reports: tuple[str, ...]


class Strikes:
    """Strikes machines, some at once; `life` waits for the outcome of one."""

    def __init__(self, fleet: Fleet, strikes: Iterable[Strike]) -> None:
        """Begin all of them, and for each branch a machine that nothing happens to."""
        self._fleet = fleet
        self._names: queue.SimpleQueue[str] = queue.SimpleQueue()
        for number in range(AT_ONCE):
            self._names.put(f"struck{number}")
        self._making = threading.Lock()
        self._pool = ThreadPoolExecutor(AT_ONCE)
        wanted = list(dict.fromkeys(strikes))
        branches = dict.fromkeys(strike.branch for strike in wanted)
        self._quiet = {branch: self._pool.submit(self._live, branch, None) for branch in branches}
        self._lives = {one: self._pool.submit(self._live, one.branch, one) for one in wanted}

    def life(self, strike: Strike) -> Life:
        """Return the outcome of a strike. Raises what its thread raised."""
        return self._lives[strike].result()

    def undisturbed(self, branch: str = "main") -> Life:
        """Return the outcome of a branch's machine that nothing happened to."""
        return self._quiet[branch].result()

    def end(self) -> None:
        """Begin no further ones, and wait for those under way."""
        self._pool.shutdown(cancel_futures=True)

    def _live(self, branch: str, strike: Strike | None) -> Life:
        name, lab = self._names.get(), self._fleet.lab
        with self._making:
            machine = self._fleet.machine(name, disk="ext4", settings=self._fleet.settings(ref=branch))
        machine.write(
            "/etc/systemd/system/pyinfra-solo.service.d/90-lab.conf",
            "[Service]\nRestartSec=200ms\nExecStartPre=\n",
        )
        machine.run("sync", check=True)  # what an image brings has long been on its disk
        health = lab.health(machine, interval=INTERVAL)
        try:
            machine.power_on()
            return self._struck(machine, health, strike)
        finally:
            with self._making:
                lab.discard(machine)
            self._names.put(name)

    def _struck(self, machine: BootedMachine, health: Health, strike: Strike | None) -> Life:
        where, opened, first = "", False, 0
        if strike:
            strike.wait(machine)
            seen = Seen(machine)
            where, opened = f"{seen.station} {seen.operation}", seen.open
            strike.blow(machine)
            first = health.mark()
        wait_for_exit(machine, 0, LIMIT)
        health.wait_for_200(LIMIT)
        early = [check for check in health.timeline[:first] if check.status == 200 and not opened]
        early += [check for check in before_opening(machine, health, first) if check.status == 200]
        return Life(
            where,
            opened,
            tuple(early),
            tree(machine),
            empty(machine),
            report(machine),
            broken_reports(machine),
        )


def tree(machine: BootedMachine) -> dict[str, str]:
    """List what the engine and the roles put on its disk, and who has a line in shadow and in gshadow."""
    accounts = {
        name: machine.run(f"cut -d: -f1 /etc/{name} | sort", check=True).stdout
        for name in ("shadow", "gshadow")
    }
    found, left = listing(machine, *managed(machine), leave_out=OTHERS), abandoned_locks(machine)
    return {**accounts, **{path: what for path, what in found.items() if path not in left}}


def abandoned_locks(machine: BootedMachine) -> frozenset[str]:
    """List the lock files of account tools that were killed: nothing in them but the PID, or nothing yet."""
    found = ((path, LOCK_FILE.fullmatch(path.name)) for path in machine.inside("/etc").iterdir())
    return frozenset(
        f"/etc/{path.name}"
        for path, match in found
        if match and path.read_text() in ("", f"{match[1]}\0") and not _is_account_tool(machine, match[1])
    )


def _is_account_tool(machine: BootedMachine, pid: str) -> bool:
    """Tell whether the process lives and is one of ACCOUNT_TOOLS; after a reboot its PID may be another's."""
    try:
        return machine.inside(f"/proc/{pid}/comm").read_text().strip() in ACCOUNT_TOOLS
    except FileNotFoundError:
        return False


def managed(machine: BootedMachine) -> list[str]:
    """Return those of MANAGED that exist: `runtimes` does not when the image had the right one."""
    return [path for path in MANAGED if machine.inside(path).exists()]


def empty(machine: BootedMachine) -> frozenset[str]:
    """List files of 0 bytes: what a power cut makes of contents that never reached the disk."""
    found = machine.run(["find", *managed(machine), "-xdev", "-type", "f", "-empty"]).stdout.splitlines()
    return frozenset(found) - abandoned_locks(machine)


def broken_reports(machine: BootedMachine) -> tuple[str, ...]:
    """List reports that are not JSON."""
    found = []
    for path in sorted(machine.inside(f"{STATE}/reports").glob("*.json")):
        try:
            json.loads(path.read_text())
        except ValueError:
            found.append(path.name)
    return tuple(found)


def station(name: str) -> Strike:
    """Strike when the run comes to this station."""
    later = LINE[LINE.index(name) :]
    return Strike(f"at {name}", lambda seen: seen.station in later)


def operation(number: int) -> Strike:
    """Strike when the run begins this operation and has ended the one before."""
    return Strike(f"at operation {number}", lambda seen: seen.operation >= number)


def file(name: str, pattern: str, branch: str = "main") -> Strike:
    """Strike when a path that matches `pattern` appears."""
    return Strike(name, lambda seen: seen.there(pattern), branch=branch)


def after_opening(seconds: float) -> Strike:
    """Strike this many seconds after the gate has opened."""
    return Strike(f"{seconds} s after the gate opened", lambda seen: seen.open, pause=seconds)
