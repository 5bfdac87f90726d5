"""A secret is replaced in each form in which a message may show it."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from pyinfra_solo.system.redaction import redacted, without_secrets

HIDDEN = "hush  hush/'secret\"\\x é"


@pytest.mark.parametrize(
    "form",
    [
        HIDDEN, " ".join(HIDDEN.split()), repr(HIDDEN)[1:-1], json.dumps(HIDDEN)[1:-1], shlex.quote(HIDDEN)[1:-1],
        quote(HIDDEN), quote(HIDDEN, safe=""), quote_plus(HIDDEN), HIDDEN.encode().hex(),
    ],
)  # fmt: skip
def test_secret_is_redacted_however_it_is_quoted(form: str) -> None:
    assert redacted(f"before {form} after", [HIDDEN]) == "before [redacted] after"


@pytest.mark.parametrize("user", ["a", "ab", "abc"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_secret_is_redacted_inside_longer_base64(user: str, encode: Callable[[bytes], bytes]) -> None:
    """Basic authentication (RFC 7617)."""
    text = encode(f"{user}:~~hunter2??:more".encode()).decode()
    shown = redacted(text, ["~~hunter2??"])
    assert "[redacted]" in shown
    assert len(shown.replace("[redacted]", "")) <= len(text) - len("~~hunter2??")


def test_secret_inside_another_leaves_no_rest() -> None:
    assert redacted("swordfish-two", ["swordfish", "swordfish-two"]) == "[redacted]"


def test_check_that_is_shown_has_no_secrets() -> None:
    check = {"kind": "http", "target": "http://u:p%2Fword@127.0.0.1/", "secrets": ["p/word"], "within": 5}
    shown = without_secrets(check)
    assert shown == {"kind": "http", "target": "http://u:[redacted]@127.0.0.1/", "within": 5}
    assert check["secrets"] == ["p/word"]
