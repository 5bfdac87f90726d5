"""Bound time: a deadline for a run, tries with backoff and jitter inside it, and an alarm behind both."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pyinfra_solo.errors import DeadlineError

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock: a machine's wall clock may be an hour wrong at boot."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds that are left, never below 0."""
        return max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float) -> "Deadline":
        """Return this deadline, or `seconds` from now when that comes first."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    def check(self, what: str) -> None:
        """Raise DeadlineError when the time is up. what: for the message, as in "coming to fetch"."""
        if self.left() <= 0:
            raise DeadlineError(
                f"Out of time while {what}. Raise limits.deadline, or see which station took it."
            )


@dataclass(frozen=True, kw_only=True)
class Wait:
    """A pause after a failed try. what: the service. why: the error. seconds: the pause."""

    what: str
    why: str
    seconds: float


def retry(
    what: str,
    attempt: Callable[[float], T],
    *,
    deadline: Deadline,
    retried: tuple[type[Exception], ...],
    waited: Callable[[Wait], None],
    first: float = 0.2,
    most: float = 5.0,
    each: float = 5.0,
) -> T:
    """Call `attempt(timeout)` until it returns, with pauses of 0.2 s, 0.4 s … 5 s, less up to half.

    each: most seconds of one try. waited: called before each pause. Raises the last error when the
    deadline comes. Jitter, because a whole group boots at once (AWS Architecture Blog, Exponential
    Backoff And Jitter).
    """
    pause = first
    while True:
        try:
            return attempt(min(each, max(0.1, deadline.left())))
        except retried as error:
            seconds = pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            if deadline.left() <= seconds:
                raise
            waited(Wait(what=what, why=str(error) or type(error).__name__, seconds=round(seconds, 3)))
            time.sleep(seconds)
            pause = min(pause * 2, most)


@contextmanager
def alarm(seconds: float, error: Exception) -> Iterator[None]:
    """Raise `error` after `seconds` in whatever call the main thread is (setitimer(2)).

    The last resort behind every other time-out. Only in the main thread, and one at a time.
    """

    def late(_number: int, _frame: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))  # 0 would be no alarm
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
