"""Render a report as one page of HTML, without network and script, for light, dark and narrow screens."""

import os
import pwd
import stat
from itertools import chain, count
from pathlib import Path

from pyinfra_solo.errors import UsageError
from pyinfra_solo.report import text
from pyinfra_solo.report.records import Report
from pyinfra_solo.report.timeline import Timeline, timeline
from pyinfra_solo.system import durable
from pyinfra_solo.system.text import printable


def write(report: Report, path: Path) -> None:
    """Write the page into the file `path`, mode 0600. Raises UsageError when it cannot be written.

    The page may hold secrets of a failure, so a folder where another account could replace or move the
    file is refused; so is a file of another account, and a symbolic link.
    """
    html = page(report, timeline(report))
    try:
        if path.is_symlink():
            raise UsageError(f"--html {path}: is a symbolic link. Name a file that can be written.")
        _check_place(path)
        if path.is_file() or not path.exists():
            durable.write(path, html, 0o600)
        else:  # /dev/null; a pipe without a reader is an error (fifo(7))
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(html)
    except OSError as error:
        raise UsageError(f"--html {path}: {error.strerror}. Name a file that can be written.") from error


def _check_place(path: Path) -> None:
    """Raise UsageError when the file, or a folder or link that leads to it, is in another account's hands.

    Ours are root's, this process's and those of the account that called sudo(8).
    """
    users = {0, os.geteuid(), int(os.environ.get("SUDO_UID") or 0)}
    groups = {0, os.getegid(), int(os.environ.get("SUDO_GID") or 0)}
    parent = path.absolute().parent
    real = parent.resolve(strict=True)
    for one in chain([path] if path.exists() else [], [parent, *parent.parents], [real, *real.parents]):
        about = one.lstat()
        others = stat.S_IWOTH if about.st_gid in groups else stat.S_IWOTH | stat.S_IWGRP
        is_shared = (
            stat.S_ISDIR(about.st_mode) and about.st_mode & others and not about.st_mode & stat.S_ISVTX
        )
        if about.st_uid not in users or is_shared:
            who = "others may write to it" if is_shared else f"it belongs to {_user(about.st_uid)}"
            raise UsageError(
                f"--html {path}: {one}: {who}. Name a file in a folder of your own, such as /root."
            )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


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
