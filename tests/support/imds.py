"""Servers on 127.0.0.1, for tests of one module: the lab's metadata service, and answers by the line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.imds import Imds
from tests.support.instance import Instance
from tests.support.web import Answer, Asked

ADDRESS = "127.0.0.1"
NOWHERE = "http://127.0.0.1:1"
"""Nothing listens on port 1 (tcpmux): every connection is refused, at once."""


@dataclass
class Loopback:
    """The lab's network, where it is only this machine's loopback."""

    port: int = 0

    def listen(self, address: str, port: int) -> socket.socket:  # noqa: ARG002 - of the bridge
        """Whatever the lab's address is, here it is 127.0.0.1; the same port at every `start`."""
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ADDRESS, self.port))
        server.listen(128)
        self.port = server.getsockname()[1]
        return server


@dataclass
class Remembering(Imds):
    """Knows what it is asked before it answers; its log knows a moment after."""

    asked: list[Asked] = field(default_factory=list)

    def _answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        return super()._answer(asked)


@dataclass
class Metadata:
    """The lab's metadata service on the loopback, and the one instance that it knows."""

    service: Remembering
    instance: Instance
    url: str

    def asked(self, method: str = "GET") -> list[str]:
        """The paths of the requests so far that no fault kept from it, without `/latest`."""
        return [one.path.removeprefix("/latest") for one in self.service.asked if one.method == method]


@contextmanager
def metadata_service(folder: Path, instance: Instance) -> Iterator[Metadata]:
    network = Loopback()
    service = Remembering(network)
    service.put(instance, ADDRESS, "02:00:0a:4d:00:14")
    service.start()
    try:
        yield Metadata(service, instance, f"http://{ADDRESS}:{network.port}")
    finally:
        service.stop()


@dataclass
class Lines:
    """A server that sends what it is told to, byte for byte, one answer a connection.

    answers: what to send, in order, the last one again and again; b"" sends nothing and closes.
    """

    answers: Sequence[bytes]
    port: int = 0
    asked: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """An HTTP answer after which the connection closes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def lines(*answers: bytes) -> Iterator[Lines]:
    server = Lines(answers)
    with socket.create_server((ADDRESS, 0)) as listener:
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=_serve, args=(listener, server), daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, server: Lines) -> None:
    for number in range(10**6):
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5)
            server.asked.append(connection.recv(65536))
            connection.sendall(server.answers[min(number, len(server.answers) - 1)])


@contextmanager
def mute() -> Iterator[int]:
    """The port of a server that accepts connections, and never says a word."""
    with socket.create_server((ADDRESS, 0)) as listener:
        yield listener.getsockname()[1]
