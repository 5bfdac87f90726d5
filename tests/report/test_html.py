"""The page of a report: well-formed, whole without network and script, and safe with whatever a name holds."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pyinfra_solo.errors import UsageError
from pyinfra_solo.report import html as page
from pyinfra_solo.report.records import NotIdempotent, Operation, Station, Waited
from pyinfra_solo.report.timeline import Bar, Timeline
from tests.report.test_text import some

HOSTILE = '</td><script>alert("&amp;")</script><img src=x onerror=y>\x1b'
EMPTY = {"meta", "rect", "!doctype"}


class Reader(HTMLParser):
    """Its elements, each with the attributes, and its text; what is opened must be closed."""

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


def drawn(name: str = "nginx runs") -> str:
    told = some(
        role="web", outcome="failed", error=name, station=name, sha="a" * 40, source=name,
        stations=[Station(name="converge", started=0.0, seconds=2.0, outcome="ok")],
        operations=[Operation(name=name, changed=True, seconds=1.5, cpu=0.5, waits=[Waited(what=name, seconds=1)])],
        not_idempotent=[NotIdempotent(name=name, commands=[name])],
    )  # fmt: skip
    bars = [
        Bar(name="converge", kind="station", began=0.0, seconds=2.0),
        Bar(name=name, kind="operation", began=1.0, seconds=1.0, cpu=0.5, changed=True),
        Bar(name="judge", kind="station", began=2.0, seconds=None),
    ]
    return page.page(told, Timeline(zero=name, notes=[name], bars=bars))


def test_whatever_a_name_holds_is_text() -> None:
    read = Reader(drawn(HOSTILE))

    assert read.words.count('<script>alert("&amp;")</script>') == 10
    assert {tag for tag, _ in read.elements} == {tag for tag, _ in Reader(drawn()).elements}
    assert "\x1b" not in drawn(HOSTILE)


def test_a_page_asks_nothing_of_the_network_and_runs_nothing() -> None:
    text = drawn()
    tags = {tag for tag, _ in Reader(text).elements}

    assert tags & {"script", "link", "img", "iframe", "object", "base"} == set()
    assert not re.search(r"url\(|@import|https?:|\son\w+=|\s(?:src|href)=", text)
    assert "default-src 'none'" in text


def test_bars_are_parts_of_the_axis_and_show_the_cpu_time_within() -> None:
    rects = [values for tag, values in Reader(drawn()).elements if tag == "rect"]

    assert [(rect["x"], rect["width"], rect.get("class")) for rect in rects] == [
        ("0.000%", "100.000%", None),
        ("50.000%", "50.000%", None),
        ("50.000%", "25.000%", "cpu"),
        ("99.700%", "0.300%", None),
    ]


@pytest.mark.parametrize("end", [0.005, 0.05, 1.0, 7.3, 59.0, 3600.0, 100_000.0])
def test_an_axis_has_ticks_at_round_seconds_and_none_beyond_its_end(end: float) -> None:
    text = page.page(
        some(), Timeline(zero="x", notes=[], bars=[Bar(name="x", kind="run", began=0, seconds=end)])
    )
    ticks = [float(one) for one in re.findall(r"<text [^>]*>([^<]+)</text>", text)]

    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 9
    assert ticks[-1] < end


def test_a_run_without_operations_has_a_page_too() -> None:
    text = page.page(some(), Timeline(zero="x", notes=[], bars=[]))

    assert "slowest" not in Reader(text).words


def test_a_page_is_for_root_alone_as_the_report_is(tmp_path: Path) -> None:
    page.write(some(), tmp_path / "page.html")

    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("place", ["no/such/page.html", "."])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError, match=r"^--html .*\. Name a file that can be written\.$"):
        page.write(some(), tmp_path / place)
