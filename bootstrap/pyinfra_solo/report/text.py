"""A report in words for a terminal: the summary, the slowest operations, and the timeline."""

import io
import shutil
import sys
from collections.abc import Iterator

from pyinfra_solo.gate import boot_id
from pyinfra_solo.report.records import Operation, Report
from pyinfra_solo.report.timeline import Bar, Timeline, slowest
from pyinfra_solo.report.timeline import timeline as timeline_of
from pyinfra_solo.system import lock
from pyinfra_solo.system.text import printable

_GLYPHS = {"phase": "░", "unit": "▒", "run": "▓", "station": "▓", "operation": "█", "gate": "♦"}


def render(report: Report, *, slow: bool = False, timeline: bool = False) -> list[str]:
    """For this terminal: its slowest operations, its timeline, or the summary."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale without these characters shows a ? for them
        sys.stdout.reconfigure(errors="replace")
    width = shutil.get_terminal_size().columns
    if slow:
        return slow_lines(report, width)
    return timeline_lines(timeline_of(report), width) if timeline else lines(report)


def outcome(report: Report) -> str:
    """In words. A run that says that it runs, and does not, was killed."""
    if report.outcome != "running":
        took = "" if report.seconds is None else f" in {report.seconds:.1f} s"
        status = f", exit status {report.exit_code}" if report.exit_code else ""
        return f"{report.outcome}{took}{status}"
    lives = report.boot_id == boot_id() and lock.owner() is not None
    return f"{'running, at' if lives else 'killed at'} {report.station}"


def machine(report: Report) -> str:
    """What it was, and at which commit."""
    words = [report.role or "role not known", report.stage, report.instance_id]
    if report.sha:
        words.append(f"commit {report.sha[:12]} from {report.source}")
    return ", ".join(word for word in words if word)


def lines(report: Report) -> list[str]:
    """The summary. What went wrong comes before what went well."""
    said = [f"run       {report.run}, `{report.command}`: {outcome(report)}", f"machine   {machine(report)}"]
    if report.error:
        said.append(f"why       {report.station}: {report.error}")
    said += ["", "stations", *_stations(report)]
    changed = sum(one.changed for one in report.operations)
    failed = sum(one.failed for one in report.operations)
    said += ["", f"{len(report.operations)} operations: {changed} changed, {failed} failed"]
    said += [line for one in report.operations for line in _operation(one)]
    if report.not_idempotent:
        said += ["", f"{len(report.not_idempotent)} would change something again"]
        said += [
            line for one in report.not_idempotent for line in (f"  {one.name}", *_indented(one.commands))
        ]
    if report.findings:
        said += ["", f"{len(report.findings)} checks"]
    for finding in report.findings:
        how = "passed" if finding.passed else f"FAILED: {finding.detail}"
        said.append(f"  {finding.seconds:6.1f} s  {finding.check}: {how}")
    return [printable(line) for line in said]


def _stations(report: Report) -> Iterator[str]:
    for station in report.stations:
        seconds = "       …" if station.seconds is None else f"{station.seconds:6.1f} s"
        waits = f", {len(station.waits)} waits" if station.waits else ""
        yield f"  {seconds}  {station.name}{'' if station.outcome == 'ok' else f': {station.outcome}'}{waits}"


def _operation(one: Operation) -> Iterator[str]:
    if one.changed or one.failed:
        yield f"  {one.seconds:6.2f} s  {'FAILED ' if one.failed else 'changed'}  {one.name}"
        yield from _indented(one.output)


def _indented(said: list[str]) -> list[str]:
    return [f"{'':21}{line}" for line in said]


def slow_lines(report: Report, width: int) -> list[str]:
    """The ten slowest operations and what they waited for: beside them when `width` columns hold it."""
    if not report.operations:
        return ["This run came to no operation."]
    rows = [(one.seconds, printable(one.name), printable(costs(one))) for one in slowest(report)]
    names = max(len(name) for _, name, _ in rows)
    if max(14 + names + len(cost) for _, _, cost in rows) <= width:
        return [f"{seconds:8.2f} s  {name:<{names}}  {cost}".rstrip() for seconds, name, cost in rows]
    return [
        line
        for seconds, name, cost in rows
        for line in (f"{seconds:8.2f} s  {name}", *([f"{'':16}{cost}"] if cost else []))
    ]


def costs(one: Operation) -> str:
    """Its waits, and its CPU time; '' when the engine that ran it did not measure them."""
    waits = ", ".join(f"{wait.what} {wait.seconds:.2f} s" for wait in one.waits)
    return "; ".join(part for part in (waits, "" if one.cpu is None else f"CPU {one.cpu:.2f} s") if part)


def timeline_lines(timeline: Timeline, width: int) -> list[str]:
    """A line for each bar, no longer than `width` columns; at least 60."""
    labels = [_label(bar) for bar in timeline.bars]
    names = min(max(map(len, labels), default=0), max(width, 60) * 2 // 5)
    cells = max(width, 60) - names - 19
    said = [f"Seconds from {timeline.zero}.  + changed  ! failed", *timeline.notes, ""]
    said.append(f"{'':{names}}{'began':>9}{'took':>9} {_axis(timeline.end, cells)}".rstrip())
    for label, bar in zip(labels, timeline.bars, strict=True):
        name = label if len(label) <= names else label[: names - 1] + "…"
        took = "…" if bar.seconds is None else "" if bar.kind == "gate" else f"{bar.seconds:.2f}"
        said.append(f"{name:<{names}}{bar.began:9.2f}{took:>9} {_drawn(bar, timeline.end, cells)}")
    return said


def _label(bar: Bar) -> str:
    mark = "! " if bar.failed else "+ " if bar.changed else "  " if bar.kind == "operation" else ""
    return f"{'  ' * bar.level}{mark}{printable(bar.name)}"


def _axis(end: float, cells: int) -> str:
    """Its two ends, and its middle when there is room."""
    middle, last = f"{end / 2:.1f}", f"{end:.1f}"
    return f"0{middle:>{cells // 2}}{last:>{cells - cells // 2 - 1}}"


def _drawn(bar: Bar, end: float, cells: int) -> str:
    first = min(cells - 1, int(bar.began / end * cells))
    last = min(cells, round((bar.began + (bar.seconds or 0)) / end * cells))
    return " " * first + ("…" if bar.seconds is None else _GLYPHS[bar.kind] * max(1, last - first))
