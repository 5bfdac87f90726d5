"""Write events to the line's process, with secret values replaced."""

import io
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import IO, Any

import msgspec

from pyinfra_solo.protocol import AnyEvent, Declared
from pyinfra_solo.system import redaction
from pyinfra_solo.system.text import printable

_MAX_TEXT = 2000
"""Characters of a message or a line. Cut after secrets are replaced, so that no part of one is left."""
_MAX_TRACEBACK = 100
"""Lines."""
_FLUSH_SECONDS = 0.1


class EventWriter:
    """Writes events, one JSON object a line.

    Events of operations that change nothing are buffered for up to 0.1 s: at thousands of operations a
    write(2) for each costs more than the operation. All others are written at once.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._secrets: Sequence[str] = ()
        self._forms: Sequence[str] = ()
        self._buffered = False
        self._lock = threading.RLock()

    def flush_regularly(self) -> None:
        """Start a thread that writes what is buffered, whatever the main thread does."""

        def flush_for_ever() -> None:
            while True:
                time.sleep(_FLUSH_SECONDS)
                self.flush()

        threading.Thread(target=flush_for_ever, daemon=True).start()

    def hide(self, secrets: Sequence[str]) -> None:
        """Replace these values from now on, in all forms (system/redaction.py)."""
        self._secrets = redaction.forms(secrets)
        self._forms = redaction.forms(secrets, shortest=1)

    def holds_secret(self, text: str) -> bool:
        """Find a secret, or a line of one, in a text. Short ones count too."""
        return any(form in text for form in self._forms)

    def write(self, event: AnyEvent) -> None:
        """Write the event and all that is buffered."""
        self.buffer(event)
        self.flush()

    def buffer(self, event: AnyEvent) -> None:
        """Write the event within 0.1 s, or with the next `flush`."""
        # A check must work, so it arrives whole: the line logs it without the secrets that it names.
        values = event if isinstance(event, Declared) else self._redacted(msgspec.to_builtins(event))
        line = msgspec.json.encode(values) + b"\n"
        with self._lock:
            self._out.write(line)
            self._buffered = True

    def flush(self) -> None:
        """Write what is buffered. Called before a child process is started, too."""
        if self._buffered:
            with self._lock:
                self._buffered = False
                self._out.flush()

    def shown(self, text: str) -> str:
        """Return the lines of a text for the journal: with secrets replaced, and controls as codes."""
        return "\n".join(map(printable, redaction.replaced(text, self._secrets).split("\n")))

    def log_traceback(self, error: BaseException) -> None:
        """Write the error's traceback to stderr, which is the run's journal."""
        lines = self.shown("".join(traceback.format_exception(error))).splitlines()
        sys.stderr.write("".join(f"converge: {line}\n" for line in lines[-_MAX_TRACEBACK:]))
        sys.stderr.flush()

    def _redacted(self, value: Any) -> Any:
        """Return the value with every secret in its strings replaced, and bytes that are no UTF-8 escaped.

        Such bytes (PEP 383) would become JSON that the line cannot decode.
        """
        if isinstance(value, str):
            value = redaction.replaced(value, self._secrets)
            return value.encode(errors="backslashreplace").decode()[:_MAX_TEXT]
        if isinstance(value, dict):
            return {key: self._redacted(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._redacted(inner) for inner in value]
        return value


class ShownStream(io.TextIOWrapper):
    """Is stdout and stderr for what code of the ops repo prints: see `EventWriter.shown`."""

    def __init__(self, events: EventWriter, descriptor: int) -> None:
        super().__init__(os.fdopen(descriptor, "wb"), "utf-8", errors="backslashreplace", line_buffering=True)
        self._events = events

    def write(self, text: str) -> int:
        super().write(self._events.shown(text))
        return len(text)
