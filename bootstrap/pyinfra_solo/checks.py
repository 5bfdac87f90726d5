"""Declare health checks as plain data, and perform them.

A check is a value: a role declares it, the judge's process performs it, the gate's statement keeps it,
and an operator can repeat it, always the same.
"""

import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pyinfra_solo import protocol
from pyinfra_solo.clients import service_log, systemd, upstart
from pyinfra_solo.errors import DataError, SoloError
from pyinfra_solo.protocol import ChecksAnswer, ChecksRequest
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.redaction import redacted


@dataclass(frozen=True, kw_only=True)
class Check:
    """A condition that a healthy machine meets.

    kind: http, tcp, command or unit. target: a URL, host:port, a shell command, a unit's name.
    within: seconds until it must pass. stable: seconds for which a systemd unit must have been active.
    timeout: seconds for one try. status: HTTP statuses that pass. secrets: values that are shown as
    `[redacted]`, wherever the check or its result is shown. log: the service whose log tells why the check
    fails.
    """

    kind: str
    target: str
    within: float = 60.0
    stable: float = 0.0
    timeout: float = 5.0
    status: Sequence[int] = field(default=(200,))
    secrets: Sequence[str] = field(default=(), repr=False)
    log: str = ""

    def __str__(self) -> str:
        return redacted(f"{self.kind} {self.target}", self.secrets)


def http(
    url: str, *, within: float = 60, timeout: float = 5, status: Sequence[int] = (200,), log: str = ""
) -> Check:
    """Require that `url` answers with one of `status`; redirects are not followed. Raises DataError."""
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isascii()
        )
    except ValueError:
        good = False
    if not good:
        raise DataError(f"The check http({url!r}) is not an http:// or https:// URL. Correct it.")
    return Check(kind="http", target=url, within=within, timeout=timeout, status=tuple(status), log=log)


def tcp(
    port: int, host: str = "127.0.0.1", *, within: float = 60, timeout: float = 5, log: str = ""
) -> Check:
    """Require that something accepts connections on `host`:`port`. Raises DataError."""
    if not 0 < port < 65536:
        raise DataError(f"The check tcp({port}) has no port from 1 to 65535. Correct it.")
    return Check(kind="tcp", target=f"{host}:{port}", within=within, timeout=timeout, log=log)


def command(line: str, *, within: float = 60, timeout: float = 30) -> Check:
    """Require that the shell command `line` exits with 0."""
    return Check(kind="command", target=line, within=within, timeout=timeout)


def unit(name: str, *, within: float = 60, stable: float = 1) -> Check:
    """Require that the service `name` is active, and has been for `stable` seconds without a restart."""
    return Check(kind="unit", target=name, within=within, stable=stable, log=name)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check. detail: the last failure, or "ok". seconds: for all tries."""

    check: str
    passed: bool
    detail: str
    tries: int
    seconds: float


def to_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Convert checks to plain JSON values, for `from_json`."""
    return [asdict(check) for check in checks]


def from_json(values: Sequence[dict[str, Any]]) -> list[Check]:
    """Convert plain JSON values to checks.

    Raises DataError for a check that this engine does not know: what it cannot perform must not pass.
    """
    checks = []
    for value in values:
        try:
            check = replace(Check(kind="", target=""), **value)
        except TypeError as error:
            raise DataError(f"A declared check is invalid: {error}.") from error
        if check.kind not in _PERFORM:
            raise DataError(f"There is no check of kind {check.kind!r}. Kinds: {', '.join(_PERFORM)}.")
        checks.append(check)
    return checks


def perform_all(checks: Sequence[Check], deadline: Deadline) -> list[Finding]:
    """Perform all checks at once, each inside its own window and the deadline."""
    if not checks:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(checks))) as pool:
        return list(pool.map(lambda check: perform(check, deadline.at), checks))


def perform(check: Check, until: float, interval: float = 0.25) -> Finding:
    """Try a check until it passes, its own window ends, or the monotonic clock reads `until` (seconds)."""
    started = time.monotonic()
    until = min(until, started + check.within)
    tries = 0
    while True:
        tries += 1
        left = max(0.1, until - time.monotonic())
        problem = _PERFORM[check.kind](replace(check, timeout=min(check.timeout, left)))
        now = time.monotonic()
        if problem is None or now + interval >= until:
            problem = problem and f"{problem}{_last_words(check.log, now - started)}"
            return Finding(
                check=str(check),
                passed=problem is None,
                detail=redacted(problem or "ok", check.secrets),
                tries=tries,
                seconds=round(now - started, 3),
            )
        time.sleep(interval)


def _last_words(service: str, seconds: float) -> str:
    """Return the end of a service's log as a clause of a message, or "".

    seconds: since the first try. What was a minute before that, a converge may have mended.
    """
    init = "systemd" if systemd.is_running() else "upstart" if upstart.has_job(service) else "sysv"
    words = (
        service_log.last_words(init, service, time.time() - seconds - 60)
        if service and "/" not in service
        else ""
    )
    return f" (the log of {service}: {words})" if words else ""


def _http(check: Check) -> str | None:
    # 10 ms, which a role that only declares checks does not need.
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts, until = urlsplit(check.target), time.monotonic() + check.timeout
    connection = (HTTPSConnection if parts.scheme == "https" else HTTPConnection)(
        parts.hostname or "", parts.port
    )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with _connected(connection.host, connection.port, parts.scheme == "https", until) as connection.sock:
            connection.request("GET", path, headers={"User-Agent": "pyinfra-solo"})
            answer = connection.getresponse()
    except (OSError, HTTPException) as error:
        late = time.monotonic() >= until
        return f"no answer: {'timed out' if late else str(error) or type(error).__name__}"
    finally:
        connection.close()
    return None if answer.status in check.status else f"answered {answer.status}"


@contextmanager
def _connected(host: str, port: int, tls: bool, until: float) -> Iterator[socket.socket]:
    """Connect, and shut the connection down when the monotonic clock reads `until` (seconds).

    A socket's own time-out starts anew with each byte that it receives. Raises OSError.
    """
    stream = socket.create_connection((host, port), timeout=max(0.01, until - time.monotonic()))
    if tls:
        import ssl  # 15 ms

        stream = ssl.create_default_context().wrap_socket(
            stream, server_hostname=host, do_handshake_on_connect=False
        )

    def end() -> None:
        with suppress(OSError):
            socket.socket.shutdown(stream, socket.SHUT_RDWR)  # TLS's own would race with a read

    timer = threading.Timer(max(0.01, until - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        if tls:
            stream.do_handshake()  # type: ignore[attr-defined]
        yield stream
    finally:
        timer.cancel()
        stream.close()


def _tcp(check: Check) -> str | None:
    host, _, port = check.target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=check.timeout).close()
    except OSError as error:
        return f"no connection: {error}"
    return None


def _command(check: Check) -> str | None:
    # Not imported by a role that only declares checks, nor by a command that only shows them.
    from pyinfra_solo.system.processes import TimedOutError, run, sealed

    if "\0" in check.target:  # dash would leave it out
        return "cannot be run: embedded null byte"
    try:
        # Any account may read arguments, and the target may hold a secret.
        with sealed(check.target.encode()) as script:
            words = ["/bin/sh", f"/proc/{os.getpid()}/fd/{script}"]
            done = run(words, timeout=check.timeout, merge=True, grace=0)
    except TimedOutError:
        return f"still running after {check.timeout:g} s"
    except (OSError, ValueError) as error:
        return f"cannot be run: {error}"
    if done.status == 0:
        return None
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return f"exit status {done.status}" + (f": {lines[-1][:200]}" if lines else "")


def _unit(check: Check) -> str | None:
    if systemd.is_running():
        return _systemd_unit(check)
    if upstart.has_job(check.target):
        return upstart.problem(check.target, check.stable, check.timeout)
    return _command(replace(check, kind="command", target=f"service {shlex.quote(check.target)} status"))


def _systemd_unit(check: Check) -> str | None:
    """Require the unit active for long enough by its own monotonic stamp (systemd.unit(5)).

    `systemctl is-active` alone passes for a service that crashes and restarts all the time.
    """
    properties = ("LoadState", "ActiveState", "SubState", "ActiveEnterTimestampMonotonic")
    try:
        found = systemd.show([check.target], properties, check.timeout)
    except TimeoutError as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"systemctl cannot be run: {error}"
    state = found[0] if found else {}
    if state.get("LoadState") != "loaded":
        return f"there is no such unit ({state.get('LoadState', 'systemctl failed')})"
    if state.get("ActiveState") != "active":
        return f"{state.get('ActiveState')} ({state.get('SubState')})"
    active = time.clock_gettime(time.CLOCK_MONOTONIC) - int(state["ActiveEnterTimestampMonotonic"]) / 1e6
    return None if active >= check.stable else f"active for {active:.1f} s of {check.stable:g} s"


_PERFORM = {"http": _http, "tcp": _tcp, "command": _command, "unit": _unit}


def main() -> int:
    """Read a ChecksRequest from stdin, perform its checks, write a ChecksAnswer to stdout."""
    try:
        request = protocol.decode_request(sys.stdin.buffer.read(), ChecksRequest)
        findings = perform_all(from_json(request.checks), Deadline.after(request.seconds))
    except SoloError as error:
        sys.stderr.write(f"checks: {error}\n")
        return error.exit_code
    answer = ChecksAnswer(protocol=protocol.VERSION, findings=[asdict(finding) for finding in findings])
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
