"""A load balancer's health checks of a machine, from power-on on."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.lab.machine import BootedMachine
from tests.support.programs import LabError

READ_LIMIT = 65536


@dataclass(frozen=True)
class Check:
    """One poll: `at` seconds since power-on, the status or 0 with the error, and the body."""

    at: float
    status: int
    error: str = ""
    body: str = ""


@dataclass
class Health:
    """Polls `path` of a machine every `interval` seconds, one connection each, from `start`."""

    machine: BootedMachine
    path: str = "/ping.html"
    port: int = 80
    interval: float = 0.2
    timeout: float = 1.0
    timeline: list[Check] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> Health:
        """Poll in a thread until `stop`; also while the machine is off."""
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End polling."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=self.timeout * 3)

    def _poll(self) -> None:
        with self.machine.network.entered():
            due = time.monotonic()
            while not self._ended.is_set():
                # Each in a thread of its own, which is in the lab's network as this one is: a
                # check that is not answered must not hold up the next.
                threading.Thread(target=self._check, daemon=True).start()
                due += self.interval
                self._ended.wait(max(0.0, due - time.monotonic()))

    def _check(self) -> None:
        connection = http.client.HTTPConnection(self.machine.address, self.port, timeout=self.timeout)
        # The socket's timeout holds for each read alone; this ends a body that trickles.
        guard = threading.Timer(self.timeout, _hang_up, [connection])
        guard.start()
        try:
            connection.request("GET", self.path, headers={"User-Agent": "ELB-HealthChecker/2.0"})
            answer = connection.getresponse()
            body = answer.read(READ_LIMIT).decode(errors="replace")
            self.timeline.append(Check(self.now(), answer.status, body=body))
        except (OSError, http.client.HTTPException) as error:
            words = f"{type(error).__name__}: {error}"
            self.timeline.append(Check(self.now(), 0, error=words))
        finally:
            guard.cancel()
            connection.close()

    def now(self) -> float:
        """Return the seconds since the machine's last power-on."""
        return time.monotonic() - self.machine.powered_on

    def mark(self) -> int:
        """Return the length of the timeline; given as `since`, it selects later checks."""
        return len(self.timeline)

    def first_200(self, since: int = 0) -> float | None:
        """Return when the first 200 came, in seconds since the power-on before it; None when none did."""
        return next((check.at for check in self.timeline[since:] if check.status == 200), None)

    def wait_for_200(self, timeout: float = 60) -> float:
        """Wait until a check from now on is answered 200. Return its seconds since power-on."""
        return self._wait("200", lambda check: check.status == 200, timeout)

    def wait_until_not_200(self, timeout: float = 60) -> float:
        """Wait until a check from now on is not answered 200. Return its seconds since power-on."""
        return self._wait("anything but 200", lambda check: check.status != 200, timeout)

    def _wait(self, what: str, wanted: Callable[[Check], bool], timeout: float) -> float:
        seen, end = self.mark(), time.monotonic() + timeout
        while time.monotonic() < end:
            for check in self.timeline[seen:]:
                if wanted(check):
                    return check.at
            time.sleep(0.02)
        name = self.machine.name
        raise LabError(f"{name}: no {what} within {timeout} s:\n{self.story(since=seen)}")

    def story(self, since: int = 0) -> str:
        """Describe the timeline, one line for equal neighbours."""
        lines: list[str] = []
        last = ""
        for check in self.timeline[since:]:
            words = str(check.status) if check.status else check.error
            if words != last:
                lines.append(f"{check.at:8.2f} s  {words}")
            last = words
        return "\n".join(lines)


def _hang_up(connection: http.client.HTTPConnection) -> None:
    # close() alone would leave a thread that is reading where it is.
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)
