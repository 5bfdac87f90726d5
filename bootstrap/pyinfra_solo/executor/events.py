"""Write events to the line's process, with secret values replaced."""

import base64
import html
import json
import threading
import time
from collections.abc import Sequence
from typing import IO, Any
from urllib.parse import quote

import msgspec

from pyinfra_solo.protocol import AnyEvent
from pyinfra_solo.system.text import one_line

_MAX_TEXT = 2000
"""Characters of a message or a line. Cut after secrets are replaced, so that no part of one is left."""
_REDACTED = "[redacted]"
_SHORTEST_SECRET = 4
"""Characters. Shorter values would match inside ordinary words."""
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
        """Replace these values from now on.

        Output and diffs are lines, so a secret of several lines is replaced line by line. It is also
        replaced as messages and files may show it: with white space folded, or encoded (`_forms`).
        """
        parts = {part for secret in secrets for part in (secret, *secret.splitlines())}
        parts |= {form for part in parts for form in _forms(part)}
        self._forms = [part for part in parts if part.strip()]
        long = (part for part in self._forms if len(part.strip()) >= _SHORTEST_SECRET)
        self._secrets = sorted(long, key=len, reverse=True)

    def holds_secret(self, text: str) -> bool:
        """Find a secret, or a line of one, in a text. Short ones count too."""
        return any(form in text for form in self._forms)

    def write(self, event: AnyEvent) -> None:
        """Write the event and all that is buffered."""
        self.buffer(event)
        self.flush()

    def buffer(self, event: AnyEvent) -> None:
        """Write the event within 0.1 s, or with the next `flush`."""
        line = msgspec.json.encode(self._redacted(msgspec.to_builtins(event))) + b"\n"
        with self._lock:
            self._out.write(line)
            self._buffered = True

    def flush(self) -> None:
        """Write what is buffered. Called before a child process is started, too."""
        if self._buffered:
            with self._lock:
                self._buffered = False
                self._out.flush()

    def _redacted(self, value: Any) -> Any:
        """Return the value with every secret in its strings replaced, and bytes that are no UTF-8 escaped.

        Such bytes (PEP 383) would become JSON that the line cannot decode.
        """
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, _REDACTED)
            return value.encode(errors="backslashreplace").decode()[:_MAX_TEXT]
        if isinstance(value, dict):
            return {key: self._redacted(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._redacted(inner) for inner in value]
        return value


def _forms(text: str) -> Sequence[str]:
    """Return how messages, templates and commands may write a text."""
    return (
        one_line(text),
        repr(text)[1:-1],
        json.dumps(text)[1:-1],
        html.escape(text),
        quote(text, safe=""),
        base64.b64encode(text.encode(errors="surrogateescape")).decode(),
        text.replace("'", "'\"'\"'"),  # shlex.quote
    )
