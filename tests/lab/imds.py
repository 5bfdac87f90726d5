"""The instance metadata service, version 2, with a tree per machine and faults at will.

Statuses as in the EC2 User Guide, "Use the Instance Metadata Service": no or a bad token 401, no
or a bad TTL 400, X-Forwarded-For on a token request 403, unknown path 404, GET of the token 405.
Any version in a path is as good as `latest`; cloud-init 22.4.2 asks for 2021-03-23.
"""

from __future__ import annotations

import secrets
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.lab.instance import Instance, look_up, tree
from tests.lab.network import IMDS, Network
from tests.lab.web import Answer, Asked, Faults, Request, WebServer

MAX_TTL = 21600  # seconds, EC2 User Guide
SESSION_PATH = "/latest/api/token"
VERSIONS = ["1.0", "2016-09-02", "2018-09-24", "2021-03-23", "latest"]


@dataclass
class Imds:
    """The service of one lab. Machines are told apart by their address."""

    network: Network
    version_1_only: bool = False
    """No tokens: a PUT is answered 405, and a GET needs none. As before November 2019."""
    refuse_tokens: int = 0
    """Number of the next token requests that are answered 403."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Token -> when it expires, monotonic seconds. Clear it to make every client's token bad."""
    instances: dict[str, tuple[Instance, str]] = field(default_factory=dict)
    """Address -> the instance there, and its MAC."""
    _restore: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self._web = WebServer(self.network, IMDS, self._answer)

    @property
    def faults(self) -> Faults:
        """Faults from the next request on."""
        return self._web.faults

    @property
    def log(self) -> list[Request]:
        """All requests so far."""
        return self._web.log

    def start(self) -> None:
        """Serve."""
        self._web.start()

    def stop(self) -> None:
        """Refuse connections until `start`."""
        self._web.stop()

    def unreachable(self, on: bool = True) -> None:
        """Drop packets to the service; with `on` false, deliver them again."""
        if on and self._restore is None:
            self._restore = self.network.withhold(IMDS)
        elif not on and self._restore is not None:
            self._restore()
            self._restore = None

    def hang(self, on: bool = True) -> None:
        """Accept requests and never answer; with `on` false, answer again."""
        self.faults.hang = on

    def heal(self) -> None:
        """Undo every fault."""
        self.faults.clear()
        self.unreachable(False)
        self.version_1_only, self.refuse_tokens = False, 0

    def put(self, instance: Instance, address: str, mac: str) -> None:
        """Describe the machine at `address` by `instance`; later changes of it count."""
        self.instances[address] = (instance, mac)

    def requests(self, address: str) -> list[Request]:
        """Return the requests of the machine at `address` so far."""
        return [request for request in self.log if request.client == address]

    def _answer(self, asked: Asked) -> Answer:
        path = urllib.parse.unquote(urllib.parse.urlsplit(asked.path).path)
        if path == SESSION_PATH:
            return self._token(asked)
        if asked.method not in ("GET", "HEAD"):
            return _plain(405)
        if not self.version_1_only and not self._valid(asked):
            return _plain(401)
        if asked.client not in self.instances:
            return _plain(404)
        return self._metadata(path, asked.client)

    def _token(self, asked: Asked) -> Answer:
        if self.version_1_only or asked.method != "PUT":
            return _plain(405)
        if self.refuse_tokens > 0:
            self.refuse_tokens -= 1
            return _plain(403)
        if "x-forwarded-for" in asked.headers:
            return _plain(403)
        ttl = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not ttl.isdecimal() or not 1 <= int(ttl) <= MAX_TTL:
            return _plain(400)
        token = secrets.token_urlsafe(42)
        self.tokens[token] = time.monotonic() + int(ttl)
        header = {"Content-Type": "text/plain", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds": ttl}
        return Answer(200, token.encode(), header)

    def _valid(self, asked: Asked) -> bool:
        token = asked.headers.get("x-aws-ec2-metadata-token", "")
        return self.tokens.get(token, 0.0) > time.monotonic()

    def _metadata(self, path: str, client: str) -> Answer:
        version, _, rest = path.strip("/").partition("/")
        if not version:
            return Answer(200, "\n".join(VERSIONS).encode(), {"Content-Type": "text/plain"})
        instance, mac = self.instances[client]
        body = look_up(tree(instance, client, mac), rest)
        return _plain(404) if body is None else Answer(200, body, {"Content-Type": "text/plain"})


def _plain(status: int) -> Answer:
    return Answer(status, f"{status}\n".encode(), {"Content-Type": "text/plain"})
