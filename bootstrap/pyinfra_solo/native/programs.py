"""Run a program that a native fact reads from, without a shell around it."""

import subprocess
import time
from collections.abc import Callable, Sequence

TIMEOUT = 60.0
"""Seconds. systemctl(1) answers at once, unless systemd reloads its units."""

before_child: Callable[[], None] | None = None
"""Called before a child process is started."""
after_child: Callable[[str, float], None] | None = None
"""Called with the child's program and its seconds."""


def stdout_of(words: Sequence[str]) -> bytes:
    """Run a program and return its stdout. Raises CalledProcessError, TimeoutExpired and OSError."""
    if before_child:
        before_child()
    began = time.monotonic()
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=True
        ).stdout
    finally:
        if after_child:
            after_child(words[0].rpartition("/")[2], time.monotonic() - began)
