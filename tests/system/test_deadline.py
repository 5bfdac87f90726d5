"""A deadline on the monotonic clock, bounded tries inside it, and the alarm behind both."""

import signal
import time

import pytest

from pyinfra_solo.errors import DeadlineError
from pyinfra_solo.system.deadline import Deadline, Wait, alarm, retry


class Flaky:
    """Fails `failures` times, then answers; remembers the time-outs that it was given."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or ConnectionError("refused")
        self.timeouts: list[float] = []

    def __call__(self, timeout: float) -> str:
        self.timeouts.append(timeout)
        if len(self.timeouts) <= self.failures:
            raise self.error
        return "here"


def tried(attempt: Flaky, seconds: float, waits: list[Wait], **pauses: float) -> str:
    short = {"first": 0.001, "most": 0.004, **pauses}
    deadline = Deadline.after(seconds)
    return retry("the thing", attempt, deadline=deadline, retried=(OSError,), waited=waits.append, **short)


def test_time_left_is_never_negative() -> None:
    assert Deadline.after(-5).left() == 0
    assert 0 < Deadline.after(100).left() <= 100


def test_a_sooner_deadline_is_never_a_later_one() -> None:
    deadline = Deadline.after(10)

    assert deadline.sooner(1).left() <= 1
    assert deadline.sooner(100) == deadline


def test_out_of_time_says_what_was_under_way() -> None:
    Deadline.after(10).check("coming to fetch")
    with pytest.raises(DeadlineError, match="Out of time while coming to fetch"):
        Deadline.after(0).check("coming to fetch")


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_wall_clock_that_steps_moves_no_deadline(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At boot the clock may be an hour wrong until it is set, and that may happen during the run."""
    deadline, sooner = Deadline.after(100), Deadline.after(100).sooner(50)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + step)

    assert 90 < deadline.left() <= 100
    assert 40 < sooner.left() <= 50
    deadline.check("a step of the clock")


@pytest.mark.parametrize(
    ("failures", "error", "why"), [(0, None, ""), (3, None, "refused"), (1, TimeoutError(), "TimeoutError")]
)
def test_each_wait_says_for_what_and_why(failures: int, error: Exception | None, why: str) -> None:
    waits: list[Wait] = []

    assert tried(Flaky(failures, error), 10, waits) == "here"
    assert [(wait.what, wait.why) for wait in waits] == [("the thing", why)] * failures


def test_pauses_double_up_to_the_most_and_are_spread() -> None:
    """Jitter: a whole group of machines boots at once, and must not ask at once a second time."""
    waits: list[Wait] = []
    tried(Flaky(6), 10, waits, first=0.002, most=0.008)

    for wait, longest in zip(waits, [0.002, 0.004, 0.008, 0.008, 0.008, 0.008], strict=True):
        assert longest / 2 - 0.001 <= wait.seconds <= longest


def test_at_the_deadline_the_last_error_is_raised() -> None:
    attempt, waits = Flaky(10**6), list[Wait]()
    with pytest.raises(ConnectionError, match="refused"):
        tried(attempt, 0.02, waits)

    assert len(attempt.timeouts) == len(waits) + 1


@pytest.mark.parametrize(("seconds", "least", "most"), [(0, 0.1, 0.1), (1, 0.1, 1), (1000, 5, 5)])
def test_each_try_gets_the_time_left_within_bounds(seconds: float, least: float, most: float) -> None:
    attempt = Flaky(0)

    assert tried(attempt, seconds, []) == "here"
    assert least <= attempt.timeouts[0] <= most


def test_an_error_of_another_kind_is_not_retried() -> None:
    attempt = Flaky(1, KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        tried(attempt, 10, [])

    assert len(attempt.timeouts) == 1


@pytest.mark.parametrize("seconds", [0.05, 0, -1])
def test_an_alarm_raises_its_error_in_a_call_that_hangs(seconds: float) -> None:
    with pytest.raises(TimeoutError, match="late"), alarm(seconds, TimeoutError("late")):
        time.sleep(60)


def test_an_alarm_that_is_over_raises_nothing_and_restores_the_handler() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with alarm(0.05, TimeoutError("late")):
        assert signal.getsignal(signal.SIGALRM) is not before
    time.sleep(0.1)

    assert signal.getsignal(signal.SIGALRM) is before
