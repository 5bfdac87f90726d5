"""`make peers`: our converge and its peers at the same work, in turns; prints a page of Markdown.

    python -m benchmarks.peers [--only ours,cfengine,floor] [--sizes 100,1000] [--rounds N] [--json FILE]

The first run installs every tool, each into a Debian 12 of its own, which is kept: minutes. As root.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers import contestants, tables
from benchmarks.peers.race import Race
from benchmarks.peers.stage import bench
from tests.lab import host

SIZES = "10,100,1000,10000"


def sizes(text: str) -> list[int]:
    """The numbers of files that `10,100` names, the smallest first. Raises ArgumentTypeError."""
    found = sorted({int(word) if word.isdecimal() else 0 for word in text.split(",")})
    if any(size < 10 or size % 10 or size > contestants.MANY for size in found):
        raise argparse.ArgumentTypeError(f"write multiples of ten, {contestants.MANY} at most: 100,1000")
    return found


def asked() -> argparse.Namespace:
    """The command line. Ends the process with a usage message when it cannot be done."""
    names = [one.name for one in contestants.ALL]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="Ours beside its peers.")
    parser.add_argument("--only", default=",".join(names), help=f"of {','.join(names)}")
    parser.add_argument("--sizes", type=sizes, default=SIZES, help="numbers of files: 100,1000")
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each takes its turn; fewer when slow"
    )
    parser.add_argument("--limit", type=int, default=120, help="seconds that one run may take")
    parser.add_argument("--json", type=Path, help="every run, for later")
    words = parser.parse_args()
    words.only = words.only.split(",")
    for name in set(words.only) - set(names):
        parser.error(f"--only: there is no {name}; there are {', '.join(names)}")
    return words


def main() -> int:
    """Exit status 1 when a tool did not do its work."""
    words = asked()
    problem = host.missing()
    if problem:
        sys.exit(problem)
    tools = [one for one in contestants.ALL if one.name in words.only]
    with bench() as folder:
        race = Race(folder, tools, words.limit)
        race.run(words.sizes, words.rounds)
    if words.json:
        words.json.write_text(json.dumps([asdict(turn) for turn in race.turns], indent=1))
    sys.stdout.write(tables.page(race))
    return 1 if race.failures else 0


if __name__ == "__main__":
    sys.exit(main())
