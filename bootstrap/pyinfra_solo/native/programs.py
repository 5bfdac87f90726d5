"""A program that a native answer asks, without a shell around it."""

import subprocess
import time
from collections.abc import Callable, Sequence

SECONDS = 60.0
"""What is asked answers at once, or when systemd is busy reloading."""

begins: Callable[[], None] | None = None
"""Told that a child is about to be run."""
waited: Callable[[str, float], None] | None = None
"""Told what a child was run for, and for how many seconds."""


def said(words: Sequence[str]) -> bytes:
    """Its stdout. Raises CalledProcessError, TimeoutExpired and OSError."""
    if begins:
        begins()
    began = time.monotonic()
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True
        ).stdout
    finally:
        if waited:
            waited(words[0].rpartition("/")[2], time.monotonic() - began)
