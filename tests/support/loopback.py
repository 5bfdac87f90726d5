"""Servers on 127.0.0.1: one that sends given bytes, one that is silent, and sockets for the others."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

ADDRESS = "127.0.0.1"
NOWHERE = "http://127.0.0.1:1"
"""Nothing listens on port 1 (tcpmux): every connection is refused, at once."""


@dataclass
class Loopback:
    """A network that is this host's loopback alone. port: 0 until the first `listen`."""

    port: int = 0

    def listen(self, address: str, port: int) -> socket.socket:  # noqa: ARG002 - of Network
        """Listen at 127.0.0.1, whatever the address, and at the same port each time."""
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ADDRESS, self.port))
        server.listen(128)
        self.port = server.getsockname()[1]
        return server


@dataclass
class CannedServer:
    """A server that sends given bytes, one answer a connection.

    answers: in order, the last one repeated; b"" sends nothing and closes.
    """

    answers: Sequence[bytes]
    port: int = 0
    asked: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Write an HTTP answer after which the connection closes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextmanager
def canned_server(*answers: bytes) -> Iterator[CannedServer]:
    """Serve the answers on the loopback."""
    server = CannedServer(answers)
    with socket.create_server((ADDRESS, 0)) as listener:
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=_serve, args=(listener, server), daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, server: CannedServer) -> None:
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
def silent_server() -> Iterator[int]:
    """Give the port of a server that accepts connections and never answers."""
    with socket.create_server((ADDRESS, 0)) as listener:
        yield listener.getsockname()[1]
