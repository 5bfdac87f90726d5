"""Time: one deadline for a run, and bounded tries with backoff and jitter inside it."""

import random
import time
from collections.abc import Callable
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
        """Seconds; never below 0."""
        return max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float) -> "Deadline":
        """This one, or `seconds` from now when that comes first."""
        return Deadline(min(self.at, time.monotonic() + seconds))

    def check(self, what: str) -> None:
        """Raises DeadlineError when the time is up."""
        if self.left() <= 0:
            raise DeadlineError(
                f"Out of time while {what}. Raise limits.deadline, or see which station took it."
            )


@dataclass(frozen=True, kw_only=True)
class Wait:
    """One try that failed and the pause after it: for what, why, and how many seconds."""

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
    """`attempt(timeout)` until it returns, pausing 0.2 s, 0.4 s … 5 s with full jitter between.

    Raises the last error when the deadline has come. Jitter, because a whole group boots at once
    (AWS Architecture Blog, Exponential Backoff And Jitter).
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
