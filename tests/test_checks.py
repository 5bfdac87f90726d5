"""What a role calls healthy: plain data, and what happens when it is asked."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import pytest

from pyinfra_solo.checks import Check, Finding, command, from_json, http, perform, tcp, to_json, unit
from pyinfra_solo.errors import DataError
from tests.support.loopback import answer, canned_server, silent_server
from tests.support.programs import is_alive


def once(check: Check) -> Finding:
    """One try, as a check without a window makes it."""
    return perform(check, time.monotonic())


def test_a_check_is_plain_data_there_and_back() -> None:
    checks = [
        http("https://127.0.0.1:8443/healthz?full=1", status=(200, 204)),
        tcp(5432, "db.example.com", within=5),
        command("test -e /srv/shop/current", timeout=3),
        unit("nginx", stable=10),
    ]

    assert [str(check) for check in from_json(json.loads(json.dumps(to_json(checks))))] == [
        "http https://127.0.0.1:8443/healthz?full=1",
        "tcp db.example.com:5432",
        "command test -e /srv/shop/current",
        "unit nginx",
    ]
    assert from_json(to_json(checks)) == checks


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"kind": "dns", "target": "example.com"}, "There is no check of kind 'dns'. Kinds: http, tcp"),
        ({"kind": "tcp", "target": "127.0.0.1:80", "retries": 3}, "retries"),
        ({}, "There is no check of kind ''"),
    ],
)
def test_a_check_that_this_engine_does_not_know_is_refused(value: dict[str, object], said: str) -> None:
    """A commit may bring a new kind of check; what cannot be made must not pass."""
    with pytest.raises(DataError, match=said):
        from_json([value])


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1/healthz", "ftp://127.0.0.1/", "http://", "http:///healthz", "http://127.0.0.1:port/",
        "http://127.0.0.1:0/", "http://127.0.0.1:70000/", "http://[::1/", "http://127.0.0.1/h\u00e9",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_asked_is_refused_where_it_is_declared(url: str) -> None:
    with pytest.raises(DataError, match="is not an http:// or https:// URL"):
        http(url)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_cannot_be_is_refused_where_it_is_declared(port: int) -> None:
    with pytest.raises(DataError, match="is not of a port"):
        tcp(port)


def test_http_is_well_when_the_status_is_one_of_those_that_are_well() -> None:
    with canned_server(answer("204 No Content")) as server:
        assert not once(http(server.url)).passed
        assert once(http(server.url)).detail == "answered 204"
        assert once(http(server.url, status=(200, 204))).passed


def test_http_asks_for_the_path_and_the_query() -> None:
    with canned_server(answer("200 OK", b"ok")) as server:
        assert once(http(f"{server.url}/healthz?full=1")).passed
        assert once(http(server.url)).passed

    assert [request.split(b"\r\n")[0] for request in server.asked] == [
        b"GET /healthz?full=1 HTTP/1.1",
        b"GET / HTTP/1.1",
    ]


def test_a_redirect_is_not_followed() -> None:
    """A login page that answers 200 says nothing about the app."""
    with canned_server(answer("302 Found", b"", "Location: /login")) as server:
        assert once(http(server.url)).detail == "answered 302"
    assert len(server.asked) == 1


@pytest.mark.parametrize("said", [b"", b"ping\r\n", b"HTTP/1.1 2", b"\xff" * 100])
def test_a_server_that_does_not_speak_http_is_not_well(said: bytes) -> None:
    with canned_server(said) as server:
        finding = once(http(server.url))

    assert not finding.passed
    assert finding.detail.startswith("no answer: ")
    assert finding.detail != "no answer: "


def test_a_server_that_never_answers_is_not_well() -> None:
    with silent_server() as port:
        assert once(http(f"http://127.0.0.1:{port}/", timeout=0.1)).detail == "no answer: timed out"


def test_http_that_is_not_tls_is_not_well_for_https() -> None:
    with canned_server(answer("200 OK")) as server:
        assert not once(http(server.url.replace("http", "https"))).passed


def test_a_port_on_which_nothing_listens_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert once(tcp(port)).passed
    finding = once(tcp(port))

    assert not finding.passed
    assert "refused" in finding.detail


def test_a_command_is_well_when_its_exit_status_is_0() -> None:
    assert once(command("exit 0")).passed


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("echo first; echo the last line >&2; exit 3", "exit status 3: the last line"),
        ("exit 1", "exit status 1"),
        ("printf '\\377\\376'; exit 1", "exit status 1: \ufffd\ufffd"),
        ("no-such-command-here", "exit status 127: "),
        ("printf %01000d 0; exit 1", "exit status 1: " + "0" * 200),
        ("kill -9 $$", "exit status -9"),
    ],
)
def test_a_command_that_failed_says_how_by_its_last_line(line: str, said: str) -> None:
    finding = once(command(line))

    assert not finding.passed
    assert finding.detail.startswith(said)
    assert len(finding.detail) <= 250


def test_a_command_reads_nothing_from_us() -> None:
    assert once(command('test -z "$(cat)"')).passed


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    endless = command(f"sleep 60 & echo $! > {pid}; wait", timeout=0.8)
    finding = perform(endless, time.monotonic() + 1, interval=1)

    assert (finding.passed, finding.detail) == (False, "still running after 0.8 s")
    until = time.monotonic() + 10
    while is_alive(int(pid.read_text())) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_alive(int(pid.read_text()))


def test_a_check_is_made_until_it_holds(tmp_path: Path) -> None:
    line = f"echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge 3"
    finding = perform(command(line), time.monotonic() + 60, interval=0.01)

    assert (finding.passed, finding.tries) == (True, 3)


def test_a_check_is_made_once_when_there_is_no_time() -> None:
    assert perform(command("exit 1"), time.monotonic() - 100).tries == 1
    assert perform(command("exit 1", within=0), time.monotonic() + 100).tries == 1


def test_the_run_s_deadline_ends_a_window_that_is_longer() -> None:
    finding = perform(command("exit 1", within=10_000), time.monotonic() + 0.6, interval=0.01)

    assert not finding.passed
    assert finding.tries > 1


@pytest.mark.skipif(
    Path("/run/systemd/system").exists() or not shutil.which("service"), reason="no SysV init here"
)
def test_without_systemd_a_unit_is_asked_by_its_script_and_its_name_is_no_shell(tmp_path: Path) -> None:
    finding = once(unit(f"no-such; touch {tmp_path}/made"))

    assert not finding.passed
    assert not (tmp_path / "made").exists()
