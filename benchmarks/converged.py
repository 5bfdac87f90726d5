"""A machine of the role web that is as it should be: what a run costs that finds nothing to do, native and by shells.

python -m benchmarks.converged [--rounds N]

All of it is counted: python's start, the fetch from the lab's git server, every operation's look, the
role's checks. The two kinds take turns on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from benchmarks import tables
from benchmarks.boot import PACKAGES, Bench
from tests.lab import roots
from tests.lab.fleet import Fleet, baked
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.cache import cache_folder

KINDS = {"native": "pyinfra-solo run --json", "--no-native": "pyinfra-solo run --no-native --json"}
Seconds = dict[str, dict[str, list[float]]]
"""Kind -> part -> seconds, a figure a round."""


def once(machine: BootedMachine, command: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of the run's parts, and its report. Raises AssertionError when it changed anything."""
    began = time.monotonic()
    done = machine.run(command, check=True)
    whole = time.monotonic() - began
    found = json.loads(done.stdout)
    assert not any(one["changed"] for one in found["operations"]), "it was not converged"  # noqa: S101
    stations = {one["name"]: one["seconds"] for one in found["stations"]}
    looks = sum(one["seconds"] for one in found["operations"])
    return {
        "whole, with the way into the container": whole,
        "fetch": stations["fetch"],
        "converge: start": stations["converge"] - looks,
        "converge: operations": looks,
        "judge": stations["judge"],
        "converge and judge": stations["converge"] + stations["judge"],
    }, found


def run(rounds: int) -> tuple[Seconds, dict[str, Any]]:
    """Every round's figures, and the last native report."""
    seconds: Seconds = {kind: {} for kind in KINDS}
    with Lab(cache_folder() / "runs" / f"bench-{os.getpid()}") as lab:
        bare = roots.root("bare")
        bench = Bench(lab, Fleet(lab, baked(bare, lab.folder)), lab.packages.add_debs(PACKAGES, bare))
        machine = bench.ours("web1")
        bench._until_200(machine)
        for number in range(rounds + 1):
            for kind, command in KINDS.items():
                parts, found = once(machine, command)
                if kind == "native":
                    report = found
                for part, value in parts.items():
                    if number:  # the first fills caches
                        seconds[kind].setdefault(part, []).append(value)
    return seconds, report


def main() -> int:
    """Prints a table for docs/performance.md."""
    parser = argparse.ArgumentParser(description="A run with nothing to do, native and by shells.")
    parser.add_argument("--rounds", type=int, default=9)
    seconds, report = run(parser.parse_args().rounds)
    out = [
        tables.machine(),
        "",
        "| web, nothing to do: seconds | native | --no-native |",
        "| --- | --- | --- |",
    ]
    out += [
        f"| {part} | {' | '.join(tables.spread(seconds[kind][part]) for kind in KINDS)} |"
        for part in seconds["native"]
    ]
    out += ["", "| operation | seconds | it waited for |", "| --- | --- | --- |"]
    for one in sorted(report["operations"], key=lambda one: one["seconds"], reverse=True):
        waits = ", ".join(f"{wait['what']} {wait['seconds']:.3f}" for wait in one["waits"])
        out.append(f"| {one['name']} | {one['seconds']:.3f} | {waits} |")
    sys.stdout.write("\n".join(out) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
