"""Whether anything else is at work on this host: figures are worth something only when nothing is."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import cgroup
from tests.lab.machine import BootedMachine

TICKS = os.sysconf("SC_CLK_TCK")
IDLE = 0.25
"""Cores that others may take while it counts as quiet."""


def busy() -> float:
    """CPU seconds that this host has spent, all cores: /proc/stat without idle and iowait (proc(5))."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words)
    return (user + nice + system + irq + softirq + steal) / TICKS


def of(machine: BootedMachine) -> float:
    """CPU seconds of a machine since its power-on."""
    stat = cgroup.unified() / cgroup.PARENT / f"{machine.network.name}.{machine.name}" / "cpu.stat"
    used = dict(line.split() for line in stat.read_text().splitlines()) if stat.exists() else {}
    return int(used.get("usage_usec", 0)) / 1e6


def own(machine: BootedMachine) -> float:
    """CPU seconds of a machine, and of this process with its children, who serve and ask it."""
    return of(machine) + sum(os.times()[:4])


def wait(seconds: float) -> None:
    """Until the host is quiet for a second, or for `seconds`: then the figures will show it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = busy()
        time.sleep(1.0)
        if busy() - before < IDLE:
            return


@dataclass
class Others:
    """Counts from when it is made what others take."""

    machine: BootedMachine
    _began: float = field(default_factory=time.monotonic)
    _busy: float = field(default_factory=busy)

    def __post_init__(self) -> None:
        self._own = own(self.machine)

    def cores(self) -> float:
        """How many cores others have taken since, on average."""
        others = (busy() - self._busy) - (own(self.machine) - self._own)
        return max(0.0, others / (time.monotonic() - self._began))
