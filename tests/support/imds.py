"""The instance metadata service, version 2, with a tree per machine and faults at will.

Statuses as in the EC2 User Guide, "Use the Instance Metadata Service": no or a bad token 401, no
or a bad TTL 400, X-Forwarded-For on a token request 403, unknown path 404, GET of the token 405.
Any version in a path is as good as `latest`; cloud-init 22.4.2 asks for 2021-03-23.
"""

import secrets
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.instance import Instance, look_up, tree
from tests.support.loopback import ADDRESS, Loopback
from tests.support.web import Answer, Asked, Network, Request, WebServer

IMDS = "169.254.169.254"
MAX_TTL = 21600  # seconds, EC2 User Guide
SESSION_PATH = "/latest/api/token"
VERSIONS = ["1.0", "2016-09-02", "2018-09-24", "2021-03-23", "latest"]


@dataclass
class MetadataService:
    """The service of one network. Machines are distinguished by their address."""

    network: Network
    version_1_only: bool = False
    """No tokens: a PUT is answered 405, and a GET needs none. As before November 2019."""
    refuse_tokens: int = 0
    """Number of the next token requests that are answered 403."""
    tokens: dict[str, float] = field(default_factory=dict)
    """Token -> when it expires, monotonic seconds. Clear it to make every client's token bad."""
    instances: dict[str, tuple[Instance, str]] = field(default_factory=dict)
    """Address -> the instance there, and its MAC."""
    asked: list[Asked] = field(default_factory=list)
    """Requests without a fault, each noted before its answer; `log` has a request after its answer."""

    def __post_init__(self) -> None:
        self._web = WebServer(self.network, IMDS, self._answer)

        self.faults, self.log = self._web.faults, self._web.log

    def start(self) -> None:
        self._web.start()

    def stop(self) -> None:
        """Refuse connections until `start`."""
        self._web.stop()

    def hang(self, on: bool = True) -> None:
        """Accept requests and never answer; with `on` false, answer."""
        self.faults.hang = on

    def heal(self) -> None:
        """Undo every fault."""
        self.faults.clear()
        self.version_1_only, self.refuse_tokens = False, 0

    def put(self, instance: Instance, address: str, mac: str) -> None:
        """Describe the machine at `address` by `instance`; later changes of it count."""
        self.instances[address] = (instance, mac)

    def requests(self, address: str) -> list[Request]:
        """Return the requests of the machine at `address` so far."""
        return [request for request in self.log if request.client == address]

    def _answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
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


@dataclass
class Metadata:
    """A metadata service on the loopback, and the one instance that it knows."""

    service: MetadataService
    instance: Instance
    url: str

    def asked(self, method: str = "GET") -> list[str]:
        """Return the paths, without `/latest`, of the requests so far that had no fault."""
        return [one.path.removeprefix("/latest") for one in self.service.asked if one.method == method]


@contextmanager
def metadata_service(instance: Instance) -> Iterator[Metadata]:
    """Serve one instance's metadata on the loopback."""
    network = Loopback()
    service = MetadataService(network)
    service.put(instance, ADDRESS, "02:00:0a:4d:00:14")
    service.start()
    try:
        yield Metadata(service, instance, f"http://{ADDRESS}:{network.port}")
    finally:
        service.stop()
