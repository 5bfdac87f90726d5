"""The page of a report: well-formed, complete without network and script, and safe with hostile names."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pyinfra_solo.checks import Finding
from pyinfra_solo.errors import UsageError
from pyinfra_solo.protocol import NotIdempotent
from pyinfra_solo.report import html
from pyinfra_solo.report.records import Operation, Report, Station, Waited
from pyinfra_solo.report.timeline import Bar, Timeline
from tests.report.test_text import some

HOSTILE = '</td><script>alert("&amp;")</script><img src=x onerror=y>\x1b'
EMPTY = {"meta", "rect", "!doctype"}


class Reader(HTMLParser):
    """Reads the elements, each with its attributes, and the text; each element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def report(name: str) -> Report:
    """A failed run with `name` at every place that holds text from outside."""
    return some(
        role="web", outcome="failed", error=name, station=name, sha="a" * 40, source=name,
        stations=[Station(name="converge", started=0.0, seconds=2.0, outcome="ok")],
        operations=[Operation(name=name, changed=True, seconds=1.5, cpu=0.5, waits=[Waited(what=name, seconds=1)])],
        not_idempotent=[NotIdempotent(name=name, commands=[name])],
        findings=[Finding(check=name, passed=False, detail=name, tries=1, seconds=0)],
    )  # fmt: skip


def page(name: str = "nginx runs") -> str:
    bars = [
        Bar(name="converge", kind="station", began=0.0, seconds=2.0),
        Bar(name=name, kind="operation", began=1.0, seconds=1.0, cpu=0.5, changed=True),
        Bar(name="judge", kind="station", began=2.0, seconds=None),
    ]
    return html.page(report(name), Timeline(zero=name, notes=[name], bars=bars))


def test_page_shows_hostile_text_as_text() -> None:
    read = Reader(page(HOSTILE))

    assert read.words.count('<script>alert("&amp;")</script>') == 12
    assert read.words.count(r"\x1b") == 12
    assert read.tags == Reader(page()).tags
    assert "\x1b" not in page(HOSTILE)


def test_page_loads_nothing_and_runs_nothing() -> None:
    assert Reader(page()).tags & {"script", "link", "img", "iframe", "object", "base"} == set()
    assert not re.search(r"url\(|@import|https?:|\son\w+=|\s(?:src|href)=", page())
    assert "default-src 'none'" in page()


def test_bars_are_shares_of_the_axis_and_show_their_cpu_time() -> None:
    rects = [values for tag, values in Reader(page()).elements if tag == "rect"]

    assert [(rect["x"], rect["width"], rect.get("class")) for rect in rects] == [
        ("0.000%", "100.000%", None),
        ("50.000%", "50.000%", None),
        ("50.000%", "25.000%", "cpu"),
        ("99.700%", "0.300%", None),
    ]


@pytest.mark.parametrize("end", [0.005, 0.05, 1.0, 7.3, 59.0, 3600.0, 100_000.0])
def test_axis_has_ticks_at_round_seconds_before_its_end(end: float) -> None:
    bar = Bar(name="x", kind="run", began=0, seconds=end)
    text = html.page(some(), Timeline(zero="x", notes=[], bars=[bar]))
    ticks = [float(one) for one in re.findall(r"<text [^>]*>([^<]+)</text>", text)]

    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 9
    assert ticks[-1] < end


def test_page_of_a_run_without_operations_lists_none() -> None:
    text = html.page(some(), Timeline(zero="x", notes=[], bars=[]))

    assert text.startswith("<!doctype html>")
    assert "slowest" not in Reader(text).words


@pytest.mark.parametrize("before", [None, 0o644], ids=["new", "existing"])
def test_page_file_is_for_root_alone(tmp_path: Path, before: int | None) -> None:
    path = tmp_path / "page.html"
    if before:
        path.write_text("an older and longer page" * 1000)
        path.chmod(before)
    html.write(some(), path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert Reader(path.read_text()).tags >= {"html", "body", "table"}


def test_page_is_not_written_through_a_link(tmp_path: Path) -> None:
    """In /tmp a link may be another account's, and lead to a file that root must not overwrite."""
    (tmp_path / "target").write_text("kept")
    (tmp_path / "page.html").symlink_to(tmp_path / "target")

    with pytest.raises(UsageError, match=r"^--html .*/page\.html: is a symbolic link\. Name a file"):
        html.write(some(), tmp_path / "page.html")
    assert (tmp_path / "target").read_text() == "kept"


def test_file_that_is_not_regular_keeps_its_mode(tmp_path: Path) -> None:
    """So that `--html /dev/null` leaves the device as it is; here it is a named pipe."""
    os.mkfifo(tmp_path / "pipe", 0o644)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    html.write(some(), tmp_path / "pipe")
    os.close(reader)

    assert (tmp_path / "pipe").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("place", ["no/such/page.html", "."])
def test_file_that_cannot_be_written_is_a_usage_error(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match=r"^--html .*\. Name a file that can be written\.$"):
        html.write(some(), tmp_path / place)
