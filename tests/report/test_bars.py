"""The timeline in a terminal: bars that begin and end where they should, in the terminal's width."""

from __future__ import annotations

import pytest

from pyinfra_solo.report import bars
from pyinfra_solo.report.timeline import Bar, Timeline


def line(*given: Bar) -> Timeline:
    return Timeline(zero="PID 1", notes=["No kernel is shown."], bars=given)


WIDE = [
    Bar(name="userspace", kind="phase", began=0, seconds=5),
    Bar(name="x" * 300, kind="operation", began=9.999, seconds=0.001, changed=True),
    Bar(name="judge", kind="station", began=10, seconds=None),
    Bar(name="the gate is open", kind="gate", began=10, seconds=0),
]


@pytest.mark.parametrize("width", [20, 60, 80, 160])
def test_timeline_keeps_to_the_terminal_s_width(width: int) -> None:
    found = bars.lines(line(*WIDE), width)

    assert max(map(len, found)) <= max(width, 60)


def test_bars_begin_and_end_at_their_seconds() -> None:
    given = [Bar(name=name, kind="run", began=at, seconds=5) for name, at in (("a", 0), ("b", 5))]
    _, note, _, axis, first, second = bars.lines(line(*given), 60)

    assert note == "No kernel is shown."
    assert (axis.split()[2:], axis[-4:]) == (["0", "5.0", "10.0"], "10.0")
    assert first.endswith("▓" * 20)
    assert first.split()[:3] == ["a", "0.00", "5.00"]
    assert second.index("▓") == len(first)
    assert len(second) == 60


def test_marks_show_what_changed_and_what_failed() -> None:
    given = [
        Bar(name="one", kind="operation", began=0, seconds=1, changed=True),
        Bar(name="two\x07", kind="operation", began=1, seconds=1, failed=True),
        Bar(name="three", kind="operation", began=1, seconds=1),
    ]
    found = bars.lines(line(*given), 80)[4:]

    assert [label[4:12] for label in found] == ["+ one   ", "! two\\x0", "  three "]
