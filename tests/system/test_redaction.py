"""A secret is replaced in each form in which a message may show it."""

from __future__ import annotations

import json
import shlex
from urllib.parse import quote, quote_plus

import pytest

from pyinfra_solo.system.redaction import redacted, without_secrets

HIDDEN = "hush  hush/'secret\"\\x é"


@pytest.mark.parametrize(
    "form",
    [
        HIDDEN, " ".join(HIDDEN.split()), repr(HIDDEN)[1:-1], json.dumps(HIDDEN)[1:-1], shlex.quote(HIDDEN)[1:-1],
        quote(HIDDEN), quote(HIDDEN, safe=""), quote_plus(HIDDEN),
    ],
)  # fmt: skip
def test_secret_is_redacted_however_it_is_quoted(form: str) -> None:
    assert redacted(f"before {form} after", [HIDDEN]) == "before [redacted] after"


def test_secret_inside_another_leaves_no_rest() -> None:
    assert redacted("swordfish-two", ["swordfish", "swordfish-two"]) == "[redacted]"


def test_check_that_is_shown_has_no_secrets() -> None:
    check = {"kind": "http", "target": "http://u:p%2Fword@127.0.0.1/", "secrets": ["p/word"], "within": 5}
    shown = without_secrets(check)
    assert shown == {"kind": "http", "target": "http://u:[redacted]@127.0.0.1/", "within": 5}
    assert check["secrets"] == ["p/word"]
