"""The one door to the EC2 instance metadata service: IMDSv2 only.

Facts: AWS EC2 User Guide, "Use the Instance Metadata Service to access instance metadata"; a token by
PUT /latest/api/token, sent with every GET; 401 means that the token is no longer good.
The standard library's client, because urllib3 costs 80 ms of import at boot, and because a proxy
from the environment must never see these requests.
"""

import os
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from urllib.parse import urlsplit

from pyinfra_solo.errors import IdentityError

_TTL = "300"


class MetadataUnavailableError(IdentityError):
    """It did not answer, or answered with a fault: trying again can help."""


class V1OnlyError(IdentityError):
    """It answers, but gives no token."""


class Metadata:
    """A connection to the service. Not shared between threads.

    endpoint: `AWS_EC2_METADATA_SERVICE_ENDPOINT`, else http://169.254.169.254.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = (
            endpoint or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        )
        self._token: str | None = None
        self._connection: HTTPConnection | None = None

    def __enter__(self) -> "Metadata":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def get(self, path: str, timeout: float = 5) -> str | None:
        """The text at `/latest/<path>`, or None where the service says 404: absent, or not enabled.

        timeout: seconds for each exchange. Raises MetadataUnavailableError, or V1OnlyError.
        """
        for fresh in (False, True):
            if self._token is None or fresh:
                self._token = self._new_token(timeout)
            status, text = self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token}, timeout)
            if status == 404:
                return None
            if status == 200:
                return text
            if status != 401:
                break
        raise MetadataUnavailableError(f"GET {path} answered {status}")

    def _new_token(self, timeout: float) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": _TTL}
        status, text = self._ask("PUT", "api/token", headers, timeout)
        if status == 200:
            return text
        if status in (404, 405, 501):
            raise V1OnlyError(
                f"The metadata service at {self.endpoint} gives no session token (PUT answered {status}): it is "
                "IMDSv1 only, which is refused. Use a service with IMDSv2; on EC2: aws ec2 modify-instance-metadata-options."
            )
        raise MetadataUnavailableError(f"PUT api/token answered {status}")

    def _ask(self, method: str, path: str, headers: dict[str, str], timeout: float) -> tuple[int, str]:
        try:
            connection = self._open(timeout)
            connection.request(method, f"/latest/{path}", headers=headers)
            answer = connection.getresponse()
            text = answer.read(65536).decode(errors="replace")
        except (OSError, HTTPException, ValueError) as error:  # ValueError: a token that no header may hold
            self._close()
            raise MetadataUnavailableError(
                f"{method} {path}: {str(error) or type(error).__name__}"
            ) from error
        if answer.will_close:
            self._close()
        return answer.status, text

    def _open(self, timeout: float) -> HTTPConnection:
        if self._connection is None:
            parts = urlsplit(self.endpoint)
            self._connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
        self._connection.timeout = timeout
        if self._connection.sock:
            self._connection.sock.settimeout(timeout)
        return self._connection

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None
