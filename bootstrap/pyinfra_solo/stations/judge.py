"""Station judge: perform the role's own checks, in a process that knows nothing of the converge.

The checkout's engine performs them (`python -m pyinfra_solo.checks`), because a commit may bring a new
kind of check.
"""

import re
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pyinfra_solo import fence, protocol
from pyinfra_solo.checks import Finding
from pyinfra_solo.errors import JudgedError
from pyinfra_solo.gate import read_gate
from pyinfra_solo.protocol import ChecksRequest
from pyinfra_solo.stations.converge import Engine
from pyinfra_solo.system import processes
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.redaction import redacted

_PAGE_SECONDS = 5.0
"""For an answer to /ping.html; a balancer waits no longer (ALB, HealthCheckTimeoutSeconds)."""


@dataclass(frozen=True)
class Verdict:
    """The finding of each check. A role without checks is ready when it has converged."""

    findings: Sequence[Finding]

    @property
    def ready(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def require_ready(self) -> None:
        """Raise JudgedError, naming every check that failed and why."""
        if not self.ready:
            failed = [finding for finding in self.findings if not finding.passed]
            reasons = "; ".join(f"{finding.check}: {finding.detail}" for finding in failed)
            raise JudgedError(f"Converged, but the role's checks failed: {reasons}. The gate stays closed.")


def judge(checks: Sequence[dict[str, Any]], engine: Engine, deadline: Deadline) -> Verdict:
    """Perform the checks in a process of their own.

    checks: as `checks.to_json` writes them. Raises JudgedError when that process gives no answer for
    each of them: a machine that is not judged is not ready.
    """
    request = ChecksRequest(protocol=protocol.VERSION, checks=list(checks), seconds=deadline.left())
    try:
        done = processes.run(
            [str(engine.python), "-m", protocol.CHECKS], stdin=msgspec.json.encode(request),
            environment=engine.environment, timeout=deadline.left() + 10,
        )  # fmt: skip
    except TimeoutError as error:
        raise JudgedError("The health checks did not finish in time. The gate stays closed.") from error
    try:
        findings = msgspec.convert(protocol.decode_answer(done.stdout).findings, list[Finding])
    except msgspec.MsgspecError:
        findings = []
    asked = [redacted(f"{check['kind']} {check['target']}", check.get("secrets", ())) for check in checks]
    if [finding.check for finding in findings] != asked or done.status:
        secrets = [secret for check in checks for secret in check.get("secrets", ())]
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise JudgedError(
            f"The health checks ended with exit status {done.status} and no full answer ({redacted(last, secrets)}). "
            "The gate stays closed."
        )
    return Verdict(findings)


def start_waiting_web_servers(checks: Sequence[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Start the web servers that the fence has kept down, now that the machine is converged.

    say: is given a line for each. Raises JudgedError, and stops them, when they answer for the gate.
    """
    fence.release()
    started = fence.start_waiting(say)
    if started:
        try:
            require_no_other_page(checks)
        except JudgedError:
            fence.stop(started, say)
            raise


def require_no_other_page(checks: Sequence[dict[str, Any]]) -> None:
    """Raise JudgedError when /ping.html is answered with 200 here although the gate is closed.

    Then another site answers the balancer, whatever the gate says. Asked are the ports of the http checks,
    or port 80 without one.
    """
    urls = [urlsplit(check["target"]) for check in checks if check["kind"] == "http"]
    ports = {(url.port or (443 if url.scheme == "https" else 80), url.scheme == "https") for url in urls}
    for port, tls in sorted(ports or {(80, False)}):
        if not read_gate().open and _answers_200(port, tls=tls):
            raise JudgedError(
                f"Port {port} answers /ping.html with 200 although the gate is closed: remove that site or page. "
                "A port that no balancer asks is checked by tcp() or command(). The gate stays closed."
            )


def _answers_200(port: int, *, tls: bool) -> bool:
    """Ask this machine's loopback for /ping.html. No answer in _PAGE_SECONDS is none."""
    until, answer = time.monotonic() + _PAGE_SECONDS, b""
    with suppress(OSError), ExitStack() as closing:
        stream = closing.enter_context(socket.create_connection(("127.0.0.1", port), timeout=_PAGE_SECONDS))
        if tls:
            stream = closing.enter_context(_with_tls(stream))
        stream.sendall(b"GET /ping.html HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        while b"\n" not in answer and len(answer) < 256 and time.monotonic() < until:
            stream.settimeout(max(0.1, until - time.monotonic()))
            chunk = stream.recv(256)
            if not chunk:
                break
            answer += chunk
    return re.match(rb"HTTP/[\d.]+ 200\b", answer) is not None


def _with_tls(plain: socket.socket) -> socket.socket:
    """Take any certificate: it is this machine's own, for a name that is not asked here. Raises OSError."""
    import ssl  # 15 ms, which few roles need

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)
