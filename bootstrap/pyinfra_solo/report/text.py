"""Render a report as text for a terminal."""

import io
import shutil
import sys
from collections.abc import Iterator

from pyinfra_solo.gate import Statement, boot_id
from pyinfra_solo.report.records import Operation, Report
from pyinfra_solo.system import lock
from pyinfra_solo.system.text import printable


def render(report: Report, *, slow: bool = False, timeline: bool = False) -> list[str]:
    """Render for this terminal's width: the slowest operations, the timeline, or the summary."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a locale without these characters shows a ? for them
        sys.stdout.reconfigure(errors="replace")
    width = shutil.get_terminal_size().columns
    if timeline:
        from pyinfra_solo.report import bars  # 2 ms that `status` does not need
        from pyinfra_solo.report import timeline as boot

        return bars.lines(boot.timeline(report), width)
    return slow_lines(report, width) if slow else lines(report)


def lines(report: Report) -> list[str]:
    """Render the summary. What failed comes before what went well."""
    first, *why = headline(report)
    found = [first, f"machine   {machine(report)}", *why]
    found += ["", "stations", *(f"  {line}" for line in stations(report))]
    found += ["", totals(report), *(line for one in report.operations for line in _operation(one))]
    if report.not_idempotent:
        found += ["", "not idempotent"]
        found += [
            line for one in report.not_idempotent for line in (f"  {one.name}", *_indented(one.commands))
        ]
    if report.findings:
        found += ["", count(len(report.findings), "check")]
    for finding in report.findings:
        result = "passed" if finding.passed else f"FAILED: {finding.detail}"
        found.append(f"  {finding.seconds:6.1f} s  {finding.check}: {result}")
    return [printable(line) for line in found]


def headline(report: Report, label: str = "run") -> list[str]:
    """Return a line with the run, its outcome and its commit, and one with the error when it failed."""
    first = f"{label:<10}{report.run}, `{report.command}`: {outcome(report)}"
    found = [", ".join(filter(None, (first, commit(report))))]
    where = f"{report.station}: " if report.station else ""
    return [*found, f"why       {where}{report.error}"] if report.error else found


def outcome(report: Report) -> str:
    """Word the outcome. A report says `running` also when the run was killed: then nobody has the lock."""
    if report.outcome != "running":
        seconds = "" if report.seconds is None else f" in {report.seconds:.1f} s"
        status = f", exit status {report.exit_code}" if report.exit_code else ""
        return f"{report.outcome}{seconds}{status}"
    owner = lock.owner()
    alive = report.boot_id == boot_id() and owner is not None and owner.other is None
    return f"{'running, at' if alive else 'killed at'} {report.station}"


def machine(known: Report | Statement | None) -> str:
    """Word a machine's role, stage and instance id, as far as they are known."""
    if known is None:
        return "role not known"
    words = (known.role or "role not known", known.stage, known.instance_id)
    return ", ".join(word for word in words if word)


def commit(report: Report) -> str:
    """Word the commit and the source that it came from; '' when the run has not come so far."""
    source = f" from {report.source}" if report.source else ""
    return f"commit {report.sha[:12]}{source}" if report.sha else ""


def stations(report: Report) -> Iterator[str]:
    """Yield a line for each station: its seconds, its name, its outcome when it is not ok, its waits."""
    for station in report.stations:
        seconds = "       …" if station.seconds is None else f"{station.seconds:6.1f} s"
        result = "" if station.outcome == "ok" else f": {station.outcome}"
        waits = f", {count(len(station.waits), 'wait')}" if station.waits else ""
        yield f"{seconds}  {station.name}{result}{waits}"


def totals(report: Report) -> str:
    """Count the operations, and those that changed something or failed."""
    changed, failed = (sum(getattr(one, name) for one in report.operations) for name in ("changed", "failed"))
    return f"{count(len(report.operations), 'operation')}: {changed} changed, {failed} failed"


def count(number: int, word: str) -> str:
    """Return the number and the word in its singular or plural."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def _operation(one: Operation) -> Iterator[str]:
    if one.changed or one.failed or one.output:
        did = "FAILED" if one.failed else "changed" if one.changed else "warned"
        yield f"  {one.seconds:6.2f} s  {did:<7}  {one.name}"
        yield from _indented(one.output)


def _indented(texts: list[str]) -> list[str]:
    return [f"{'':21}{text}" for text in texts]


def slow_lines(report: Report, width: int) -> list[str]:
    """Render the ten slowest operations, and their waits: in the same line where all fit in `width`."""
    if not report.operations:
        return ["This run reached no operation."]
    rows = [(one.seconds, printable(one.name), printable(costs(one))) for one in slowest(report)]
    names = max(len(name) for _, name, _ in rows)
    if max(14 + names + len(cost) for _, _, cost in rows) <= width:
        return [f"{seconds:8.2f} s  {name:<{names}}  {cost}".rstrip() for seconds, name, cost in rows]
    return [
        line
        for seconds, name, cost in rows
        for line in (f"{seconds:8.2f} s  {name}", *([f"{'':16}{cost}"] if cost else []))
    ]


def slowest(report: Report, count: int = 10) -> list[Operation]:
    """Return the `count` slowest operations, the slowest first."""
    return sorted(report.operations, key=lambda operation: -operation.seconds)[:count]


def costs(one: Operation) -> str:
    """Word an operation's waits and CPU time; '' when the engine that ran it measured neither."""
    waits = ", ".join(f"{wait.what} {wait.seconds:.2f} s" for wait in one.waits)
    return "; ".join(part for part in (waits, "" if one.cpu is None else f"CPU {one.cpu:.2f} s") if part)
