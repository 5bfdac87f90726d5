"""The metadata service is asked by version 2 only, in bounded time, and never through a proxy."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from pyinfra_solo.clients import imds
from pyinfra_solo.clients.imds import MetadataUnavailableError, V1OnlyError
from tests.support.imds import Metadata
from tests.support.loopback import NOWHERE, answer, canned_server, silent_server

ID = "meta-data/instance-id"
TOKEN = answer("200 OK", b"a-token")


@pytest.fixture
def client(metadata: Metadata) -> imds.Metadata:
    del metadata  # it serves, and the environment names it
    return imds.Metadata()


def test_a_path_has_its_text_and_an_absent_one_is_none(client: imds.Metadata, metadata: Metadata) -> None:
    with client:
        assert client.get(ID) == metadata.instance.id
        assert client.get("meta-data/spot/instance-action") is None


def test_one_token_serves_all_requests(client: imds.Metadata, metadata: Metadata) -> None:
    with client:
        for _ in range(3):
            client.get(ID)

    assert metadata.asked("PUT") == ["/api/token"]
    assert metadata.asked() == [f"/{ID}"] * 3


def test_a_token_that_is_no_longer_valid_is_renewed(client: imds.Metadata, metadata: Metadata) -> None:
    with client:
        client.get(ID)
        metadata.service.tokens.clear()
        assert client.get(ID) == metadata.instance.id

    assert len(metadata.asked("PUT")) == 2


def test_tokens_that_are_never_valid_are_an_outage_and_no_circle() -> None:
    with canned_server(TOKEN, answer("401 Unauthorized"), TOKEN, answer("401 Unauthorized")) as server:
        outage = pytest.raises(MetadataUnavailableError, match="answered 401")
        with imds.Metadata(server.url) as client, outage:
            client.get(ID)
        assert len(server.asked) == 4


@pytest.mark.parametrize("status", [500, 503, 429, 400, 302])
def test_a_fault_is_an_outage(client: imds.Metadata, metadata: Metadata, status: int) -> None:
    with client:
        client.get(ID)
        metadata.service.faults.fail = [status]
        with pytest.raises(MetadataUnavailableError, match=f"answered {status}"):
            client.get(ID)
        assert client.get(ID) == metadata.instance.id


def test_a_refused_token_is_an_outage_while_it_is_refused(client: imds.Metadata, metadata: Metadata) -> None:
    """403: the service is off, or a firewall is not up yet."""
    metadata.service.refuse_tokens = 1
    with client:
        with pytest.raises(MetadataUnavailableError, match="PUT api/token answered 403"):
            client.get(ID)
        assert client.get(ID) == metadata.instance.id


def test_a_dropped_connection_is_an_outage_and_replaced(client: imds.Metadata, metadata: Metadata) -> None:
    with client:
        client.get(ID)
        metadata.service.faults.drop = 1
        with pytest.raises(MetadataUnavailableError, match="GET meta-data/instance-id: "):
            client.get(ID)
        assert client.get(ID) == metadata.instance.id


def test_an_answer_that_ends_early_is_an_outage() -> None:
    """Half of an instance id is another instance id."""
    cut = answer("200 OK", b"i-0a1b2c3d")[:-4]
    outage = pytest.raises(MetadataUnavailableError, match="too long, or cut")
    with canned_server(TOKEN, cut) as server, imds.Metadata(server.url) as client, outage:
        client.get(ID)


@contextmanager
def endless(first: bytes, then: bytes, pause: float) -> Iterator[str]:
    """A server that sends `first`, and then `then` for ever; its URL."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(first)
            while True:
                connection.sendall(then)
                time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "then", "pause"),
    [
        (b"", b"H", 0.05),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
        (LONG, b"x", 0.05),
        (CHUNKED, b"1\r\nx\r\n", 0.05),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0),
        (b"", b"garbage", 0),
        (b"HTTP/1.1 200 OK\r\n", b"X: x\r\n", 0),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000, 0),
        (CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n", 0),
        (LONG.replace(b"60000", b"99999999999"), b"x" * 1000, 0),
    ],
    ids=[
        "slow status", "slow header", "slow body", "slow chunks", "endless informational answers", "endless garbage",
        "endless headers", "endless body", "endless chunks", "a body beyond the limit",
    ],
)  # fmt: skip
def test_an_answer_that_does_not_end_is_an_outage_in_time(first: bytes, then: bytes, pause: float) -> None:
    began = time.monotonic()
    outage = pytest.raises(MetadataUnavailableError)
    with endless(first, then, pause) as url, imds.Metadata(url) as client, outage:
        client.get(ID, timeout=0.5)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * 60000 + b"\r\n"),
        (CHUNKED, b"1\r\nx\r\n" * 100),
    ],
    ids=["informational answers", "headers", "chunks"],
)
def test_an_answer_is_bounded_in_bytes_with_all_that_comes_before_it(first: bytes, then: bytes) -> None:
    outage = pytest.raises(MetadataUnavailableError, match="too long")
    with endless(first, then, 0) as url, imds.Metadata(url) as client, outage:
        client.get(ID, timeout=30)


def test_a_web_page_is_an_outage() -> None:
    """A proxy, or a portal that asks for a login, answers with status 200."""
    page = answer("200 OK", b"i-0a1b2c3d", "Content-Type: text/html; charset=utf-8")
    outage = pytest.raises(MetadataUnavailableError, match="the answer is a web page")
    with canned_server(TOKEN, page) as server, imds.Metadata(server.url) as client, outage:
        client.get(ID)


def test_an_answer_of_the_largest_size_is_one() -> None:
    with canned_server(TOKEN, answer("200 OK", b"k" * 65536)) as server, imds.Metadata(server.url) as client:
        assert client.get("meta-data/tags/instance/") == "k" * 65536


def test_the_time_is_the_one_of_each_call(client: imds.Metadata, metadata: Metadata) -> None:
    with client:
        client.get(ID, timeout=30)
        metadata.service.faults.hang = True
        with pytest.raises(MetadataUnavailableError, match="timed out"):
            client.get(ID, timeout=0.05)


def test_a_service_that_is_not_there_yet_is_an_outage(client: imds.Metadata, metadata: Metadata) -> None:
    metadata.service.stop()
    with client:
        with pytest.raises(MetadataUnavailableError, match="refused"):
            client.get(ID)
        metadata.service.start()
        assert client.get(ID) == metadata.instance.id


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"])
def test_a_service_without_tokens_is_refused(status: str) -> None:
    """Version 1 would answer anyone who can make this machine send a GET."""
    with canned_server(answer(status)) as server:
        refusal = pytest.raises(V1OnlyError, match="IMDSv1 only, which is refused")
        with imds.Metadata(server.url) as client, refusal:
            client.get(ID)
        assert [request.split()[0] for request in server.asked] == [b"PUT"]


@pytest.mark.parametrize("token", [b"", b"a\r\nX-Evil: 1", b"a\n", b"\xff\xfe", b"\0", "tok\u0435n".encode()])
def test_an_invalid_token_is_an_outage_and_no_crash(token: bytes) -> None:
    with canned_server(answer("200 OK", token), answer("401 Unauthorized")) as server:
        with imds.Metadata(server.url) as client, pytest.raises(MetadataUnavailableError):
            client.get(ID)
        assert not any(b"X-Evil" in request for request in server.asked)


@pytest.mark.parametrize("text", [b"", b"220 mail ESMTP\r\n", b"HTTP/1.1 \r\n\r\n", b"\xff" * 65537])
def test_a_server_that_does_not_speak_http_is_an_outage(text: bytes) -> None:
    outage = pytest.raises(MetadataUnavailableError)
    with canned_server(text) as server, imds.Metadata(server.url) as client, outage:
        client.get(ID)


def test_text_that_is_not_utf_8_has_replacement_characters() -> None:
    with canned_server(TOKEN, answer("200 OK", b"w\xffb")) as server, imds.Metadata(server.url) as client:
        assert client.get("meta-data/tags/instance/Role") == "w\ufffdb"


def test_a_proxy_of_the_environment_never_sees_a_request(
    client: imds.Metadata, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)

    with client:
        assert client.get(ID) == metadata.instance.id


def test_the_endpoint_is_ec2_s_unless_the_environment_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked here: making a client opens no connection."""
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
    assert imds.Metadata().endpoint == "http://169.254.169.254"
    monkeypatch.delenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    assert imds.Metadata().endpoint == "http://169.254.169.254"


def test_a_server_that_never_answers_is_an_outage() -> None:
    outage = pytest.raises(MetadataUnavailableError, match="PUT api/token: timed out")
    with silent_server() as port, outage:
        imds.Metadata(f"http://127.0.0.1:{port}").get(ID, timeout=0.05)
