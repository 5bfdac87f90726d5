"""Render a report as one page of HTML, without network and script, for light, dark and narrow screens."""

import os
import stat
from itertools import count
from pathlib import Path

from pyinfra_solo.errors import UsageError
from pyinfra_solo.report import text
from pyinfra_solo.report.records import Report
from pyinfra_solo.report.timeline import Timeline, timeline
from pyinfra_solo.system.text import printable

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW


def write(report: Report, path: Path) -> None:
    """Write the page into the file `path`, mode 0600. Raises UsageError when it cannot be written.

    A symbolic link is refused: in a folder that others can write to, it may lead to any file.
    """
    html = page(report, timeline(report))
    try:
        with open(path, "w", encoding="utf-8", opener=lambda name, _: os.open(name, _FLAGS, 0o600)) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # not /dev/null
                os.fchmod(file.fileno(), 0o600)
            file.write(html)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else error.strerror
        raise UsageError(f"--html {path}: {reason}. Name a file that can be written.") from error


def page(report: Report, line: Timeline) -> str:
    """Render the page. Text of the report is escaped, and its control characters are shown as codes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # 25 ms that no other command needs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # a macro's Markup is a subclass
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    step = _step(line.end)
    return environment.get_template("report.html.j2").render(
        report=report, line=line, text=text, slowest=text.slowest(report), step=step, ticks=_ticks(step, line.end),
        # A bar is 0.3 % wide at least, and never beyond the edge.
        x=lambda seconds: f"{min(100 * seconds / line.end, 99.7):.3f}",
        width=lambda seconds: f"{max(100 * seconds / line.end, 0.3):.3f}",
    )  # fmt: skip


def _ticks(step: float, end: float) -> list[float]:
    """Return the seconds of each tick; none at the very end, where its number would be cut off."""
    return [round(number * step, 6) for number in range(int(end / step - 0.4) + 1)]


def _step(end: float) -> float:
    """Return the seconds between two ticks: 1, 2 or 5 times a power of ten, for 3 to 8 ticks."""
    steps = (times * 10.0**power for power in count(-3) for times in (1, 2, 5))
    return next(step for step in steps if end / step <= 8)
