"""Turns: each tool works, is measured, and is checked; then the next one, and all of it again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import stage
from benchmarks.peers.contestants import Contestant
from benchmarks.peers.stage import CHECKOUT, TREE, Stage
from benchmarks.peers.workload import COLD, DRIFT, STATES, Workload
from tests.support.programs import LabError

EMPTY = "empty"
SLOW = 10.0
"""Seconds of a cold run from which a tool has a few rounds only."""
FEW = 2


@dataclass(frozen=True)
class Turn:
    """One run. files: 0 for an empty policy; wall, cpu: seconds; peak: MB."""

    tool: str
    files: int
    state: str
    round: int
    wall: float
    cpu: float
    peak: float


@dataclass
class Race:
    """The contestants in the benchmark's `folder`. limit: seconds that a run may take.

    turns: all runs of those that did their work. failures, skipped: (tool, files) -> why there is no figure.
    """

    folder: Path
    tools: Sequence[Contestant]
    limit: int
    turns: list[Turn] = field(default_factory=list)
    failures: dict[tuple[str, int], str] = field(default_factory=dict)
    skipped: dict[tuple[str, int], str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    _stages: dict[str, Stage] = field(default_factory=dict)

    def run(self, sizes: Sequence[int], rounds: int) -> None:
        """Install what is not yet, then race: first nothing at all, then each size, the smallest first."""
        for tool in self.tools:
            try:
                self._install(tool)
            except LabError as error:
                self.failures |= {
                    (tool.name, files): f"it could not be installed: {error}" for files in (0, *sizes)
                }
                sys.stderr.write(f"{error}\n")
        for files in (0, *sizes):
            for number in range(rounds):
                for tool in self.tools:
                    self._turn(tool, files, number)

    def _install(self, tool: Contestant) -> None:
        sys.stderr.write(f"{tool.name}: installing, unless it is\n")
        lock = (CHECKOUT / "requirements.lock").read_text() if tool.lock else ""
        made = stage.image(tool.root or tool.name, tool.packages, tool.script, lock)
        self._stages[tool.name] = one = Stage(tool.name, made, self.folder)
        one.settle()
        self.versions[tool.name] = one.say(tool.version, tool.environment) or "unknown"

    def _turn(self, tool: Contestant, files: int, number: int) -> None:
        """One round of a tool at one size: nothing, or cold, no-op and drift in a tree of its own."""
        if (tool.name, files) in self.failures or not self._due(tool, files, number):
            return
        try:
            if files == 0:
                self._measure(tool, Workload(0, self.folder / "tree", str(TREE)), EMPTY, number)
            else:
                self._work(tool, files, number)
        except LabError as error:
            self.failures[tool.name, files] = str(error)
            self.turns = [one for one in self.turns if (one.tool, one.files) != (tool.name, files)]
            sys.stderr.write(f"{tool.name}, {files}: {error}\n")

    def _due(self, tool: Contestant, files: int, number: int) -> bool:
        """Whether it takes part in this round. A run that would be ended at the limit is not begun: it
        is foretold by ten times the time that a tenth of the files took."""
        if files > tool.most:
            self.skipped[tool.name, files] = f"not asked of it: {files} files are for the fast"
        elif number == 0:
            before = max(self._walls(tool, files // 10), default=0.0)
            if before * 10 > self.limit:
                self.skipped[tool.name, files] = f"it would take {before * 10:.0f} s, by {files // 10} files"
        slow = number >= FEW and max(self._walls(tool, files), default=0.0) >= SLOW
        return not slow and (tool.name, files) not in self.skipped

    def _walls(self, tool: Contestant, files: int) -> list[float]:
        return [one.wall for one in self.turns if (one.tool, one.files) == (tool.name, files) and files]

    def _work(self, tool: Contestant, files: int, number: int) -> None:
        work = Workload(files, self.folder / "tree", str(TREE))
        shutil.rmtree(work.root, ignore_errors=True)
        work.lay_out()
        for state in STATES:
            drifted = work.drift() if state == DRIFT else ""
            before = work.seen() if state != COLD else {}
            output = self._measure(tool, work, state, number)
            wrong = [*work.wrong(), *work.rewritten(before, drifted)]
            changes = tool.changed(output)
            if changes is not None and changes != work.changes[state]:
                wrong.append(f"it says that it changed {changes} things, of {work.changes[state]}")
            if wrong:
                raise LabError(
                    f"{state}: {len(wrong)} things are wrong: {'; '.join(wrong[:3])}\n{output[-2000:]}"
                )

    def _measure(self, tool: Contestant, work: Workload, state: str, number: int) -> str:
        empty = state == EMPTY
        command = tool.empty if empty else tool.work
        environment = {**work.environment(), **tool.environment}
        given = tool.given(f"{stage.INSIDE}/policies/{'empty' if empty else 'ops'}")
        run = self._stages[tool.name].run
        figures = run(command.split(), environment=environment, given=given, limit=self.limit)
        if figures.code not in tool.well:
            how = "not done at the limit" if figures.code is None else f"exit status {figures.code}"
            raise LabError(f"{state}: {how}\n{figures.output[-2000:]}")
        turn = Turn(tool.name, work.files, state, number, figures.wall, figures.cpu, figures.peak)
        self.turns.append(turn)
        sys.stderr.write(
            f"{work.files:6} {state:6} {tool.name:12} {figures.wall:8.3f} s  {figures.cpu:8.3f} s CPU  "
            f"{figures.peak:6.1f} MB\n"
        )
        return figures.output
