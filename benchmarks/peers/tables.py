"""The page: figures of all tools, and whether the goals are met."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import tables
from benchmarks.peers.race import EMPTY, Race, Turn
from benchmarks.peers.workload import COLD, DRIFT, NO_OP, STATES

OURS, CFENGINE, FLOOR = "ours", "cfengine", "floor"


@dataclass(frozen=True)
class Goal:
    """An aim. most: what it may be; values: what it is, a figure for each round; unit: of both."""

    aim: str
    most: float
    values: list[float]
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """By the median; None when it was not measured."""
        return statistics.median(self.values) <= self.most if self.values else None


def page(race: Race) -> str:
    """All of it, as Markdown."""
    sizes = sorted({one.files for one in race.turns if one.files})
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    parts = [[f"{tables.machine()}; load average at the end {load}"], _versions(race), _empty(race)]
    parts += [_size(race, files) for files in sizes]
    parts.append(_goals(race.turns))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _versions(race: Race) -> Iterator[str]:
    yield "| tool | version |"
    yield "| --- | --- |"
    for tool in race.tools:
        note = f": {tool.note}" if tool.note else ""
        yield f"| {tool.name} | {race.versions.get(tool.name, 'not installed')}{note} |"


def _empty(race: Race) -> Iterator[str]:
    yield "Nothing to do: seconds, CPU seconds, peak MB. Median (least-most)."
    yield ""
    yield "| tool | n | wall | CPU | peak |"
    yield "| --- | --- | --- | --- | --- |"
    for tool in race.tools:
        found = _of(race.turns, tool.name, 0, EMPTY)
        if not found:
            yield f"| {tool.name} | - | {_why(race, tool.name, 0)} | | |"
            continue
        wall, cpu = (_spread([pick(one) for one in found]) for pick in (_wall, _cpu))
        yield f"| {tool.name} | {len(found)} | {wall} | {cpu} | {_peak(found)} |"


def _size(race: Race, files: int) -> Iterator[str]:
    yield f"{files} files: wall seconds, median (least-most); median CPU seconds; peak MB of all runs."
    yield ""
    yield f"| tool | n | {' | '.join(f'{state} | CPU' for state in STATES)} | peak |"
    yield f"| --- | --- | {' --- | --- |' * len(STATES)} --- |"
    for tool in race.tools:
        found = {state: _of(race.turns, tool.name, files, state) for state in STATES}
        if (tool.name, files) in race.failures or not all(found.values()):
            yield f"| {tool.name} | - | {_why(race, tool.name, files)} |" + " |" * (2 * len(STATES))
            continue
        cells = [
            f"{_spread([one.wall for one in turns])} | {statistics.median(one.cpu for one in turns):.2f}"
            for turns in found.values()
        ]
        everything = [one for turns in found.values() for one in turns]
        yield f"| {tool.name} | {len(found[DRIFT])} | {' | '.join(cells)} | {_peak(everything)} |"


def _why(race: Race, tool: str, files: int) -> str:
    if (tool, files) in race.failures:
        return f"failed: {race.failures[tool, files].splitlines()[0][:120]}"
    return f"not run: {race.skipped.get((tool, files), 'another run of it failed')}"


def _goals(turns: list[Turn]) -> Iterator[str]:
    yield "| goal | at most | measured, median (least-most) | met |"
    yield "| --- | --- | --- | --- |"
    for goal in goals(turns):
        measured = f"{_spread(goal.values)}{goal.unit}" if goal.values else "not measured"
        met = {True: "yes", False: "no", None: "-"}[goal.met]
        yield f"| {goal.aim} | {goal.most:g}{goal.unit} | {measured} | {met} |"


def goals(turns: list[Turn]) -> list[Goal]:
    """The aims, with what was measured; ratios are of runs of the same round."""
    beside = [
        Goal(
            f"{state}, {files} files, wall, beside cf-agent",
            most,
            _ratios(turns, (OURS, files), (CFENGINE, files), state),
        )
        for state, files, most in (
            (NO_OP, 100, 0.33), (NO_OP, 1000, 0.33), (COLD, 100, 0.33), (COLD, 1000, 0.33), (NO_OP, 10000, 0.4),
        )
    ]  # fmt: skip
    started = [one.wall for one in _of(turns, OURS, 0, EMPTY)]
    start = statistics.median(started) if started else 0.0
    growth = _ratios(turns, (OURS, 10000), (OURS, 1000), NO_OP, lambda one: one.wall - start)
    return [
        *beside,
        Goal("no-op, 10000 files beside 1000, wall, both less start-up", 10.5, growth if started else []),
        Goal(
            "no-op, 1000 files, wall, beside the floor",
            4.0,
            _ratios(turns, (OURS, 1000), (FLOOR, 1000), NO_OP),
        ),
        Goal("start-up, nothing to do, CPU", 0.15, [one.cpu for one in _of(turns, OURS, 0, EMPTY)], " s"),
        Goal("peak memory, 1000 files, all states", 40.0, _peaks(turns), " MB"),
    ]


def _peaks(turns: list[Turn]) -> list[float]:
    return [one.peak for state in STATES for one in _of(turns, OURS, 1000, state)]


def _wall(turn: Turn) -> float:
    return turn.wall


def _cpu(turn: Turn) -> float:
    return turn.cpu


def _ratios(
    turns: list[Turn],
    one: tuple[str, int],
    other: tuple[str, int],
    state: str,
    pick: Callable[[Turn], float] = _wall,
) -> list[float]:
    """Round by round; [] when either was not measured."""
    ours = {turn.round: pick(turn) for turn in _of(turns, *one, state)}
    theirs = {turn.round: pick(turn) for turn in _of(turns, *other, state)}
    return [ours[number] / theirs[number] for number in ours if number in theirs]


def _of(turns: list[Turn], tool: str, files: int, state: str) -> list[Turn]:
    return [one for one in turns if (one.tool, one.files, one.state) == (tool, files, state)]


def _peak(turns: list[Turn]) -> str:
    return f"{max(one.peak for one in turns):.0f}"


def _spread(values: list[float]) -> str:
    """Median (least-most), to three figures or to milliseconds."""
    middle = statistics.median(values)
    digits = 3 if middle < 1 else 2 if middle < 10 else 1
    return f"{middle:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"
