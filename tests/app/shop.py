"""A small shop: it says which release it is, and which process."""

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RELEASE = Path(__file__).resolve().parent.name
Start = Callable[[str, list[tuple[str, str]]], Any]


def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """/ is JSON; /healthz is 200 when well; /slow takes `?seconds=` (at most 30)."""
    path = environ["PATH_INFO"]
    if path == "/":
        return _answer(start, "200 OK", {"release": RELEASE, "pid": os.getpid()})
    if path == "/healthz":
        return _answer(start, "200 OK", {"well": True})
    if path == "/slow":
        seconds = min(30.0, float(environ.get("QUERY_STRING", "").removeprefix("seconds=") or 2))
        time.sleep(seconds)
        return _answer(start, "200 OK", {"slept": seconds})
    return _answer(start, "404 Not Found", {"path": path})


def _answer(start: Start, status: str, value: object) -> Iterable[bytes]:
    body = json.dumps(value).encode()
    start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
