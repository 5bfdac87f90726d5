"""What play says to its parent: events, a JSON object a line."""

import json
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

import msgspec

from pyinfra_solo.system.text import one_line

_MOST_TEXT = 2000
"""Characters of a message or a line; cut after secrets are taken out, so that no part of one is left."""
_REDACTED = "[redacted]"
_SILENCE = 0.1
"""Seconds."""


class EventWriter:
    """Writes events; takes secret values out of them.

    An operation that finds nothing to do is told of together with others: whoever listens is kept
    informed within a tenth of a second, and at once of whatever changes, fails or has to wait.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._hidden: Sequence[str] = ()
        self._starting: dict[str, Any] | None = None
        self._told = 0.0
        self._lock = threading.RLock()

    def watch(self) -> None:
        """From now on an operation that does not end is told of, whatever it is at."""

        def look() -> None:
            while True:
                time.sleep(1.0)
                before = self._starting
                time.sleep(1.0)
                if before is not None and self._starting is before:
                    self.hurry()

        threading.Thread(target=look, daemon=True).start()

    def hide(self, secrets: Sequence[str]) -> None:
        """From now on. A secret of several lines is hidden line by line, as output and diffs are lines; also as
        messages show it, with each white space as one blank, or quoted as Python does; what is shorter than four characters is no secret, and is part of every other word."""
        parts = {part for secret in secrets for part in (secret, *secret.splitlines())}
        parts |= {form for part in parts for form in (one_line(part), repr(part)[1:-1])}
        self._hidden = sorted((part for part in parts if len(part.strip()) >= 4), key=len, reverse=True)

    def starting(self, **values: Any) -> None:
        """An operation starts: told when it has to wait for something, or changes anything."""
        self._starting = values

    def unchanged(self, *, name: str, **times: float) -> None:
        """The operation has ended, and found nothing to do."""
        self._starting = None
        self._write("operation", {"name": self._clean(name), "changed": False, "failed": False, **times})
        if time.monotonic() - self._told > _SILENCE:
            self._flush()

    def ended(self, **values: Any) -> None:
        """The operation has ended, and there is something to tell."""
        self.hurry()
        self.event("operation", **values)

    def event(self, event: str, **values: Any) -> None:
        self._write(event, self._clean(values))
        self._flush()

    def hurry(self) -> None:
        """Tell which operation is at work, if that is not known yet."""
        with self._lock:
            starting, self._starting = self._starting, None
            if starting:
                self.event("starting", **starting)

    def _write(self, event: str, values: dict[str, Any]) -> None:
        line = _json({"event": event, **values}) + b"\n"
        with self._lock:
            self._out.write(line)

    def _flush(self) -> None:
        with self._lock:
            self._out.flush()
        self._told = time.monotonic()

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._hidden:
                value = value.replace(secret, _REDACTED)
            return value[:_MOST_TEXT]
        if isinstance(value, dict):
            return {key: self._clean(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._clean(inner) for inner in value]
        return value


def _json(value: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a name that is not UTF-8
        return json.dumps(value).encode()
