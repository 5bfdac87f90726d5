"""Measure the start of each of our processes: imports alone, and which packages take the time.

python -m benchmarks.starts
"""

from __future__ import annotations

import collections
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.tables import spread

ENGINE = Path(__file__).parents[1] / "bootstrap"
PROCESSES = {
    "python alone": "pass",
    "boot": "import pyinfra_solo.cli.main, pyinfra_solo.boot, pyinfra_solo.run.start",
    "converge's process": "from pyinfra_solo.executor import lazy_pyinfra; lazy_pyinfra.import_pyinfra(); from pyinfra_solo.executor import pyinfra_speed; pyinfra_speed.start(); import pyinfra_solo.executor.__main__, pyinfra_solo.executor.session",
    "judge": "import pyinfra_solo.stations.judge",
    "status": "import pyinfra_solo.cli.main, pyinfra_solo.report.status",
}
TIMES = 15
HEAVIEST = 6
LINE = re.compile(r"import time: +(\d+) \| +\d+ \| +([\w.]+)")
"""A line of `python -X importtime`: self time in microseconds, cumulative, module."""

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ENGINE), "PYTHONSAFEPATH": "1"}


def start(program: str) -> tuple[float, float]:
    """Return seconds of wall clock, and of CPU, from fork to the end of `python -c program`."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shares(program: str) -> dict[str, float]:
    """Return import seconds by top-level package, its own modules only; the standard library is one."""
    argv = [sys.executable, "-X", "importtime", "-c", program]
    output = subprocess.run(argv, env=ENVIRONMENT, check=True, capture_output=True, text=True).stderr
    found: collections.Counter[str] = collections.Counter()
    for microseconds, module in LINE.findall(output):
        top = module.partition(".")[0]
        owner = "standard library" if top.lstrip("_") in STANDARD or top in STANDARD else top
        found[owner] += int(microseconds)
    return {name: microseconds / 1e6 for name, microseconds in found.items()}


STANDARD = sys.stdlib_module_names


def heaviest(program: str) -> str:
    """Return the packages that take longest, by their median over a few runs."""
    runs = [shares(program) for _ in range(5)]
    names = {name for run in runs for name in run}
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for name in names}
    ordered = sorted(medians.items(), key=lambda one: one[1], reverse=True)[:HEAVIEST]
    return ", ".join(f"{name} {seconds:.3f}" for name, seconds in ordered if seconds >= 0.002)


def main() -> int:
    """Print a table for docs/performance.md."""
    out = ["| process | start, s | CPU, s | imports, s |", "| --- | --- | --- | --- |"]
    for name, program in PROCESSES.items():
        start(program)  # writes the bytecode
        walls, cpus = zip(*(start(program) for _ in range(TIMES)), strict=True)
        out.append(f"| {name} | {spread(list(walls))} | {spread(list(cpus))} | {heaviest(program)} |")
    sys.stdout.write("\n".join(out) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
