"""Ask the EC2 instance metadata service: IMDSv2 only, each answer bounded in time and size.

Source: AWS EC2 User Guide, "Use the Instance Metadata Service to access instance metadata". PUT
/latest/api/token gives a token, which every GET carries; 401 means that it is no longer valid.
The standard library's client, because urllib3 takes 80 ms to import at boot, and because a proxy
from the environment must never see these requests.
"""

import os
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from pyinfra_solo.errors import IdentityError

_TTL = "300"
_MOST = 65536
"""Bytes of an answer's body. 50 tag keys of 128 characters, the longest that is asked for, have 25,650."""
_MOST_RECEIVED = 2 * _MOST
"""Bytes of an exchange, headers included."""


class MetadataUnavailableError(IdentityError):
    """The service did not answer, or answered with a fault: a retry can help."""


class V1OnlyError(IdentityError):
    """The service answers, but has no tokens."""


class Metadata:
    """A connection to the service. Not shared between threads.

    endpoint: `AWS_EC2_METADATA_SERVICE_ENDPOINT`, else http://169.254.169.254.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = (
            endpoint or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        )
        self._token: str | None = None
        self._connection: _Connection | None = None

    def __enter__(self) -> "Metadata":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def get(self, path: str, timeout: float = 5) -> str | None:
        """Return the text at `/latest/<path>`, or None for a 404: absent, or not enabled.

        timeout: seconds for each exchange, from its first byte to its last; a new token is one of its own.
        Raises MetadataUnavailableError, V1OnlyError.
        """
        for fresh in (False, True):
            if self._token is None or fresh:
                self._token = self._new_token(timeout)
            status, text = self._exchange("GET", path, {"X-aws-ec2-metadata-token": self._token}, timeout)
            if status == 404:
                return None
            if status == 200:
                return text
            if status != 401:
                break
        raise MetadataUnavailableError(f"GET {path} answered {status}")

    def _new_token(self, timeout: float) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": _TTL}
        status, text = self._exchange("PUT", "api/token", headers, timeout)
        if status == 200:
            return text
        if status in (404, 405, 501):
            raise V1OnlyError(
                f"The metadata service at {self.endpoint} gives no session token (PUT answered {status}): it is "
                "IMDSv1 only, which is refused. Use a service with IMDSv2; on EC2: aws ec2 modify-instance-metadata-options."
            )
        raise MetadataUnavailableError(f"PUT api/token answered {status}")

    def _exchange(self, method: str, path: str, headers: dict[str, str], timeout: float) -> tuple[int, str]:
        try:
            connection = self._open(time.monotonic() + timeout)
            connection.request(method, f"/latest/{path}", headers=headers)
            with connection.getresponse() as answer:
                text = _text(answer)
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a token that no header may hold
            self._close()
            raise MetadataUnavailableError(
                f"{method} {path}: {str(error) or type(error).__name__}"
            ) from error
        if answer.will_close:
            self._close()
        return answer.status, text

    def _open(self, until: float) -> "_Connection":
        if self._connection is None:
            parts = urlsplit(self.endpoint)
            self._connection = _Connection(parts.hostname or "", parts.port or 80)
        self._connection.bound(until)
        return self._connection

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def _text(answer: HTTPResponse) -> str:
    """Read the whole answer: half of an instance id is another instance id. Raises HTTPException.

    EC2 never answers with a web page; a proxy, or a portal that asks for a login, does, with status 200.
    """
    body = answer.read(_MOST + 1)
    if len(body) > _MOST or answer.length:
        raise HTTPException("the answer is too long, or cut")
    if answer.status == 200 and answer.headers.get_content_type() == "text/html":
        raise HTTPException("the answer is a web page")
    return body.decode(errors="replace")


class _Connection(HTTPConnection):
    """A connection whose exchanges each end at a time (monotonic seconds)."""

    def bound(self, until: float) -> None:
        self._until = until
        self.timeout = max(1e-3, until - time.monotonic())
        if isinstance(self.sock, _Socket):
            self.sock.until, self.sock.left = until, _MOST_RECEIVED
            self.sock.settimeout(self.timeout)

    def connect(self) -> None:
        super().connect()
        self.sock = _Socket(fileno=self.sock.detach())
        self.bound(self._until)


class _Socket(socket.socket):
    """A socket whose time-out is for all of an answer: Python's own restarts with each read.

    left: bytes that it may still receive. http.client counts neither headers nor informational answers.
    """

    until = 0.0
    left = 0

    def recv_into(self, *arguments: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(left)
        received = super().recv_into(*arguments)
        self.left -= received
        if self.left < 0:
            raise OSError("the answer is too long")
        return received
