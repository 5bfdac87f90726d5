"""Draw a timeline as lines of text, a bar each, for a terminal."""

from pyinfra_solo.report.timeline import Bar, Timeline
from pyinfra_solo.system.text import printable

_GLYPHS = {"phase": "░", "unit": "▒", "run": "▓", "station": "▓", "operation": "█", "gate": "♦"}
_INDENT = {"unit": "  ", "station": "  ", "operation": "    "}


def lines(timeline: Timeline, width: int) -> list[str]:
    """Render a line for each bar, no longer than `width` columns, which count as 60 at least."""
    labels = [_label(bar) for bar in timeline.bars]
    names = min(max(map(len, labels), default=0), max(width, 60) * 2 // 5)
    cells = max(width, 60) - names - 19
    found = [f"Seconds from {timeline.zero}.  + changed  ! failed", *timeline.notes, ""]
    found.append(f"{'':{names}}{'began':>9}{'took':>9} {_axis(timeline.end, cells)}".rstrip())
    for label, bar in zip(labels, timeline.bars, strict=True):
        name = label if len(label) <= names else label[: names - 1] + "…"
        took = "…" if bar.seconds is None else "" if bar.kind == "gate" else f"{bar.seconds:.2f}"
        found.append(f"{name:<{names}}{bar.began:9.2f}{took:>9} {_drawn(bar, timeline.end, cells)}")
    return found


def _label(bar: Bar) -> str:
    mark = "! " if bar.failed else "+ " if bar.changed else "  " if bar.kind == "operation" else ""
    return f"{_INDENT.get(bar.kind, '')}{mark}{printable(bar.name)}"


def _axis(end: float, cells: int) -> str:
    middle, last = f"{end / 2:.1f}", f"{end:.1f}"
    return f"0{middle:>{cells // 2}}{last:>{cells - cells // 2 - 1}}"


def _drawn(bar: Bar, end: float, cells: int) -> str:
    first = min(cells - 1, int(bar.began / end * cells))
    last = min(cells, round((bar.began + (bar.seconds or 0)) / end * cells))
    return " " * first + ("…" if bar.seconds is None else _GLYPHS[bar.kind] * max(1, last - first))
