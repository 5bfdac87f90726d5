"""An alarm behind a bound: it ends what does not end by itself, whatever call this process is in."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def alarm(seconds: float, error: Exception) -> Iterator[None]:
    """`error` is raised, `seconds` from now, in whatever this process is at (setitimer(2)); only in the main
    thread, and one at a time."""

    def late(_number: int, _frame: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
