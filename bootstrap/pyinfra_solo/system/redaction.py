"""Replace secret values in text, in every form in which a message may show them."""

import base64
import html
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from pyinfra_solo.system.text import one_line

REDACTED = "[redacted]"
_SHORTEST = 4
"""Characters. Shorter values would match inside ordinary words."""
_SHORTEST_IN_BASE64 = 6


def forms(secrets: Iterable[str], shortest: int = _SHORTEST) -> list[str]:
    """List what is to be replaced for these values, the longest first.

    Output and diffs are lines, so a secret of several lines is replaced line by line. It is also replaced
    with white space folded, in base64 or hex, and as Python, JSON, HTML, a shell or a URL quotes it. shortest:
    characters; shorter values are left out.
    """
    parts = {part for secret in secrets for part in (secret, *secret.splitlines())}
    found = {form for part in parts for form in _forms(part) if len(form.strip()) >= shortest}
    return sorted(found, key=len, reverse=True)


def _forms(text: str) -> Iterable[str]:
    in_url = text.encode(errors="surrogateescape")
    return (
        text, one_line(text), repr(text)[1:-1], json.dumps(text)[1:-1], text.replace("'", "'\"'\"'"),
        quote(in_url), quote(in_url, safe=""), quote_plus(in_url),
        html.escape(text), in_url.hex(), *_in_base64(in_url),
    )  # fmt: skip


def _in_base64(secret: bytes) -> Iterable[str]:
    """Return the part of any base64 text that the secret alone decides, such as of `user:secret` (RFC 7617).

    Three bytes are four characters, so it can begin at three places of a group (RFC 4648).
    """
    for before in range(3):
        text = base64.b64encode(bytes(before) + secret).decode()
        part = text[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6]
        if len(part) >= _SHORTEST_IN_BASE64:
            yield from (part, part.replace("+", "-").replace("/", "_"))


def replaced(text: str, found: Iterable[str]) -> str:
    """Replace what `forms` has listed."""
    for form in found:
        text = text.replace(form, REDACTED)
    return text


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Replace these values in `text`."""
    return replaced(text, forms(secrets))


def without_secrets(check: Mapping[str, Any]) -> dict[str, Any]:
    """Make a check's JSON values (`checks.to_json`) fit to be shown: the target redacted, no secrets."""
    shown = {key: value for key, value in check.items() if key != "secrets"}
    if "target" in shown:
        shown["target"] = redacted(str(shown["target"]), check.get("secrets", ()))
    return shown
