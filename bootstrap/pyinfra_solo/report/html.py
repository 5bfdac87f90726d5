"""A report as one page of HTML: needs no network and no script, and suits light and dark, narrow and wide."""

import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from pyinfra_solo.errors import UsageError
from pyinfra_solo.report.records import Operation, Report
from pyinfra_solo.report.text import costs, machine, outcome
from pyinfra_solo.report.timeline import Bar, Timeline, slowest, timeline
from pyinfra_solo.system.text import printable

_STYLE = """
:root { color-scheme: light dark; --text: #1c2126; --quiet: #5a6570; --line: #dde2e7; --page: #fff;
  --phase: #a9b4bf; --unit: #8d7fc7; --run: #5b6b7a; --station: #3f7fbf; --wait: #7fc4a4; --cpu: #1f8a5b;
  --bad: #c8372d; --gate: #1f8a5b; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ec; --quiet: #9aa5b0; --line: #333b43; --page: #15191d;
    --phase: #5d6872; --unit: #8f80d6; --run: #8593a1; --station: #4f94d8; --wait: #2f6b50; --cpu: #4fc48d;
    --bad: #f0695e; --gate: #4fc48d; }
}
* { box-sizing: border-box; }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 1500px; margin: 0 auto; padding: 1.2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .2rem 0; } .quiet, th { color: var(--quiet); } .bad, .failed th { color: var(--bad); }
table { border-collapse: collapse; width: 100%; }
th { font-weight: normal; text-align: left; vertical-align: bottom; }
tbody th { color: var(--text); vertical-align: top; } tr.unit th, tr.phase th { color: var(--quiet); }
td, th { padding: .12rem .5rem .12rem 0; } tr { border-bottom: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; width: 1%; vertical-align: top; }
.costs td, .costs th { padding-block: .3rem; vertical-align: top; }
.costs td:last-child { width: 40%; }
.name { width: 30%; } tr.station .name, tr.unit .name { padding-left: 1rem; }
tr.operation .name { padding-left: 2rem; } tr.run .name, tr.gate .name { font-weight: 600; }
.plot { padding: .3rem 0 0; vertical-align: top; background-image: linear-gradient(90deg, var(--line) 1px, transparent 1px);
  background-size: var(--step) 100%; }
svg { display: block; width: 100%; height: 14px; overflow: visible; } .axis svg { height: 18px; }
svg text { font-size: 11px; fill: var(--quiet); }
.phase rect { fill: var(--phase); } .unit rect { fill: var(--unit); } .run rect { fill: var(--run); }
.station rect { fill: var(--station); } .operation rect { fill: var(--wait); } .operation rect.cpu { fill: var(--cpu); }
.gate rect { fill: var(--gate); } .failed rect { fill: var(--bad); }
.key { display: inline-block; margin-left: .9em; }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .3em; background: var(--key); }
@media (max-width: 700px) {
  .time tr { display: flex; flex-wrap: wrap; } .time .name { flex: 1; } .time .plot { flex: 0 0 100%; padding: .1rem 0; }
  .time .number { width: 4.2rem; } .time tr.operation .name { padding-left: 1rem; }
}
"""


def write(report: Report, path: Path) -> None:
    """A new file is for root alone, as the report is. Raises UsageError for a place that cannot be written."""
    text = page(report, timeline(report))
    try:
        with open(
            path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)
        ) as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"--html {path}: {error.strerror}. Name a file that can be written.") from error


def page(report: Report, line: Timeline) -> str:
    """All of it. Whatever comes from a report is escaped."""
    body = [
        f"<h1>{_text(machine(report))}</h1>",
        f"<p>{_text(f'{report.command}: {outcome(report)}')}</p>",
        f'<p class="quiet">{_text(f"run {report.run}, begun {report.started}, engine {report.engine}")}</p>',
        *([f'<p class="bad">{_text(f"{report.station}: {report.error}")}</p>'] if report.error else []),
        *_timeline(line),
        *_slowest(slowest(report)),
        *_list(
            "Would change again", [f"{one.name}: {'; '.join(one.commands)}" for one in report.not_idempotent]
        ),
        *_list(
            "Checks", [f"{one.check}: {'passed' if one.passed else one.detail}" for one in report.findings]
        ),
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
            f"<title>{_text(f'{report.role or report.command} {report.run}')}</title>",
            f"<style>{_STYLE}</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def _timeline(line: Timeline) -> Iterator[str]:
    step = _step(line.end)
    keys = [
        ("unit", "unit"),
        ("station", "station"),
        ("wait", "operation"),
        ("cpu", "its CPU time"),
        ("bad", "failed"),
    ]
    yield "<h2>Timeline</h2>"
    yield f'<p class="quiet">Seconds from {_text(line.zero)}. {"".join(_key(*one) for one in keys)}</p>'
    for note in line.notes:
        yield f'<p class="quiet">{_text(note)}</p>'
    yield f'<table class="time" style="--step: {100 * step / line.end:.4f}%">'
    yield '<thead><tr><th class="name"></th><th class="number">began</th><th class="number">took</th>'
    yield f'<td class="plot axis"><svg>{"".join(_ticks(step, line.end))}</svg></td></tr></thead><tbody>'
    for bar in line.bars:
        yield _row(bar, line.end)
    yield "</tbody></table>"


def _key(colour: str, name: str) -> str:
    return f'<span class="key" style="--key: var(--{colour})">{name}</span>'


def _ticks(step: float, end: float) -> Iterator[str]:
    """Not one at the very end, which would stand beyond the edge."""
    at = 0.0
    while at <= end - step * 0.4:
        yield f'<text x="{100 * at / end:.3f}%" dx="3" y="12">{at:g}</text>'
        at = round(at + step, 6)


def _step(end: float) -> float:
    """Seconds between two ticks: 1, 2 or 5 of a power of ten, so that there are 3 to 8."""
    power = 10.0**-3
    while True:
        for times in (1, 2, 5):
            if end / (power * times) <= 8:
                return power * times
        power *= 10


def _row(bar: Bar, end: float) -> str:
    took = "…" if bar.seconds is None else "" if bar.kind == "gate" else f"{bar.seconds:.2f}"
    failed = " failed" if bar.failed else ""
    name = _text(bar.name) + (' <span class="quiet">changed</span>' if bar.changed else "")
    rects = _rect(bar.began, bar.seconds or 0.0, end)
    if bar.cpu and not bar.failed:
        rects += _rect(bar.began, bar.cpu, end, ' class="cpu"')
    return (
        f'<tr class="{bar.kind}{failed}"><th scope="row" class="name">{name}</th>'
        f'<td class="number">{bar.began:.2f}</td><td class="number">{took}</td>'
        f'<td class="plot"><svg aria-hidden="true">{rects}</svg></td></tr>'
    )


def _rect(began: float, seconds: float, end: float, more: str = "") -> str:
    """At least a hair wide, and never beyond the edge."""
    x, width = 100 * began / end, 100 * seconds / end
    return f'<rect{more} x="{min(x, 99.7):.3f}%" width="{max(width, 0.3):.3f}%" y="2" height="10" rx="1"/>'


def _slowest(operations: Sequence[Operation]) -> Iterator[str]:
    if not operations:
        return
    yield (
        f"<h2>The slowest {len(operations)} operations</h2>"
        if len(operations) > 1
        else "<h2>Its operation</h2>"
    )
    yield '<table class="costs"><thead><tr><th class="number">seconds</th><th>operation</th><th>waited for</th></tr></thead><tbody>'
    for one in operations:
        name = _text(one.name) + (' <span class="quiet">changed</span>' if one.changed else "")
        yield f'<tr><td class="number">{one.seconds:.2f}</td><td>{name}</td><td>{_text(costs(one))}</td></tr>'
    yield "</tbody></table>"


def _list(title: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield f"<h2>{title}</h2>\n<ul>{''.join(f'<li>{_text(item)}</li>' for item in items)}</ul>"


def _text(text: str) -> str:
    return escape(printable(text))
