"""A small HTTP server whose faults a test can set while it runs."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast

HANG_LIMIT = 600.0  # seconds; what hangs ends with the server, and by then at the latest


class Network(Protocol):
    """Where a server listens: the lab's network, or this host's loopback."""

    def listen(self, address: str, port: int) -> socket.socket:
        """Open a listening TCP socket."""


@dataclass
class Faults:
    """Faults until `clear`. Each request is delayed, then hung, failed or dropped."""

    fail: list[int] = field(default_factory=list)
    """Statuses to answer the next requests with; each is used once."""
    delay: float = 0.0
    """Seconds to wait before each answer."""
    hang: bool = False
    """Accept, read the request, and never answer."""
    drop: int = 0
    """Number of the next requests whose connection is reset instead of an answer."""
    drop_after: int | None = None
    """Reset the connection after so many bytes of each body."""

    def clear(self) -> None:
        """Remove all faults."""
        self.fail, self.delay, self.hang, self.drop, self.drop_after = [], 0.0, False, 0, None


@dataclass(frozen=True)
class Request:
    """One line of a server's log: `at` is monotonic seconds; status 0 means no answer."""

    at: float
    client: str
    method: str
    path: str
    status: int


@dataclass
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request as the server sees it; header names are in lower case."""

    client: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class DroppedError(Exception):
    """The connection is to be reset."""


@dataclass
class WebServer:
    """Serves `answer` at an address, a thread per connection."""

    network: Network
    address: str
    answer: Callable[[Asked], Answer]
    port: int = 80
    faults: Faults = field(default_factory=Faults)
    log: list[Request] = field(default_factory=list)
    _server: "_Server | None" = None
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://{self.address}" + (f":{self.port}" if self.port != 80 else "")

    def start(self) -> None:
        """Listen and serve, in threads of this process."""
        self._released.clear()
        listener = self.network.listen(self.address, self.port)
        self._server = _Server(self, listener)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening, end every connection: clients are refused from now on."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
        self._server = None

    def handle(self, asked: Asked) -> Answer:
        """Return the answer to a request, or do what the faults say."""
        self._released.wait(self.faults.delay)
        if self.faults.hang:
            self._released.wait(HANG_LIMIT)
            raise DroppedError
        if self.faults.drop > 0:
            self.faults.drop -= 1
            raise DroppedError
        if self.faults.fail:
            return Answer(self.faults.fail.pop(0), b"a fault that a test has set\n")
        return self.answer(asked)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: WebServer, listener: socket.socket) -> None:
        super().__init__((owner.address, owner.port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.owner = owner
        self.connections: set[socket.socket] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that went away."""

    def hang_up(self) -> None:
        """Reset every open connection."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # unbuffered, each header line is a packet and waits 40 ms for its ACK
    timeout = 60

    def setup(self) -> None:
        super().setup()
        self.owner.connections.add(self.connection)

    def finish(self) -> None:
        self.owner.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    @property
    def owner(self) -> _Server:
        return cast("_Server", self.server)

    def serve(self) -> None:
        """Answer one request of any method."""
        web, at, client, status = self.owner.owner, time.monotonic(), str(self.client_address[0]), 0
        try:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = web.handle(Asked(client, self.command, self.path, headers, self._body()))
            status = answer.status
            self._send(answer, web.faults.drop_after)
        except DroppedError:
            self._reset()
        finally:
            web.log.append(Request(at, client, self.command, self.path, status))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve  # noqa: N815 http.server's names

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, answer: Answer, drop_after: int | None) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:drop_after])
        self.wfile.flush()
        if drop_after is not None and drop_after < len(answer.body):
            # A reset at once would also take away what the client has not read yet.
            time.sleep(0.05)
            raise DroppedError

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 http.server's name
        """Write nothing: the owner keeps the log."""
