"""Ask this machine for /ping.html as a balancer does, to find another page than the gate's.

Standard library and the gate alone: `gate close` uses it, and starts fast.
"""

import re
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

from pyinfra_solo.gate import PAGE, read_gate

_BYTES = 16384
_SECONDS = 5.0
"""For an answer to /ping.html; a balancer waits no longer (ALB, HealthCheckTimeoutSeconds)."""


def other_page(checks: Sequence[Mapping[str, Any]]) -> str:
    """Return what else than the gate answers /ping.html here with 200, and what to do; "" for nothing.

    Then the balancer's answer does not depend on the gate. Asked are ports 80 and 443, and those of the
    http checks.
    """
    urls = [urlsplit(check["target"]) for check in checks if check["kind"] == "http"]
    ports = {(url.port or (443 if url.scheme == "https" else 80), url.scheme == "https") for url in urls}
    for port, tls in sorted(ports | {(80, False), (443, True)}):
        gate, page = read_gate(), _page(port, tls=tls)
        if page is None or read_gate() != gate:
            continue  # a run has opened or closed it meanwhile
        if not gate.open:
            return (
                f"Port {port} answers /ping.html with 200 although the gate is closed: remove that site or page. "
                "A port that no balancer asks is checked by tcp() or command()."
            )
        if page != PAGE:
            return (
                f"Port {port} answers /ping.html with another page than the gate's: remove that site or page. "
                "The balancer would get it from a closed gate, too."
            )
    return ""


def _page(port: int, *, tls: bool) -> bytes | None:
    """Ask this machine's loopback for /ping.html. Return the start of a page with status 200, else None.

    No answer in _SECONDS is none.
    """
    until, answer = time.monotonic() + _SECONDS, b""
    with suppress(OSError), ExitStack() as closing:
        stream = closing.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_SECONDS))
        if tls:
            stream = closing.enter_context(_with_tls(stream))
        # HTTP/1.0: the page comes in one piece (RFC 9112, Transfer-Encoding).
        stream.sendall(b"GET /ping.html HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        while len(answer) < _BYTES and time.monotonic() < until:
            stream.settimeout(max(0.1, until - time.monotonic()))
            chunk = stream.recv(_BYTES)
            if not chunk:
                break
            answer += chunk
    found = re.match(rb"HTTP/[\d.]+ 200\b.*?(?:\r?\n\r?\n|$)", answer, re.DOTALL)
    return answer[found.end() :] if found else None


def _with_tls(plain: socket.socket) -> socket.socket:
    """Take any certificate: it is this machine's own, for a name that is not asked here. Raises OSError."""
    import ssl  # 15 ms, which few roles need

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)
