"""Checks are plain data; performing one ends in time, and says why it failed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pyinfra_solo.checks import (
    Check,
    Finding,
    _systemd_unit,
    command,
    from_json,
    http,
    perform,
    tcp,
    to_json,
    unit,
)
from pyinfra_solo.clients import service_log, upstart
from pyinfra_solo.errors import DataError
from tests.support.loopback import answer, canned_server, silent_server
from tests.support.programs import is_alive

ACTIVE = """
read now rest < /proc/uptime
now=${{now%.*}}000000
echo LoadState=loaded; echo ActiveState=active; echo ActiveEnterTimestampMonotonic={since}
"""


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
def test_a_check_that_this_engine_does_not_know_is_an_error(value: dict[str, object], said: str) -> None:
    """A commit may bring a new kind of check; what cannot be performed must not pass."""
    with pytest.raises(DataError, match=said):
        from_json([value])


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1/healthz", "ftp://127.0.0.1/", "http://", "http:///healthz", "http://127.0.0.1:port/",
        "http://127.0.0.1:0/", "http://127.0.0.1:70000/", "http://[::1/", "http://127.0.0.1/h\u00e9",
    ],
)  # fmt: skip
def test_an_invalid_url_is_refused_where_it_is_declared(url: str) -> None:
    with pytest.raises(DataError, match="is not an http:// or https:// URL"):
        http(url)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_invalid_port_is_refused_where_it_is_declared(port: int) -> None:
    with pytest.raises(DataError, match="has no port from 1 to 65535"):
        tcp(port)


def test_http_passes_with_one_of_the_statuses() -> None:
    with canned_server(answer("204 No Content")) as server:
        assert not once(http(server.url)).passed
        assert once(http(server.url)).detail == "answered 204"
        assert once(http(server.url, status=(200, 204))).passed


def test_http_requests_the_path_and_the_query() -> None:
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
def test_a_server_that_does_not_speak_http_fails(said: bytes) -> None:
    with canned_server(said) as server:
        finding = once(http(server.url))

    assert not finding.passed
    assert finding.detail.startswith("no answer: ")
    assert finding.detail != "no answer: "


def test_a_server_that_never_answers_fails() -> None:
    with silent_server() as port:
        assert once(http(f"http://127.0.0.1:{port}/", timeout=0.1)).detail == "no answer: timed out"


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H"], ids=["continue", "a byte a time"])
def test_an_answer_that_does_not_end_fails_in_time(piece: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            stream, _ = server.accept()
            with stream, contextlib.suppress(OSError):
                while True:
                    stream.sendall(piece)
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with ThreadPoolExecutor() as pool:
            finding = pool.submit(perform, http(url, within=0.5, timeout=0.3), math.inf).result(timeout=60)
    assert finding.detail == "no answer: timed out"


def test_plain_http_fails_for_https() -> None:
    with canned_server(answer("200 OK")) as server:
        assert not once(http(server.url.replace("http", "https"))).passed


def test_a_port_on_which_nothing_listens_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert once(tcp(port)).passed
    finding = once(tcp(port))

    assert not finding.passed
    assert "refused" in finding.detail


def test_a_command_passes_with_exit_status_0() -> None:
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
def test_a_failed_command_is_shown_by_status_and_last_line(line: str, said: str) -> None:
    finding = once(command(line))

    assert not finding.passed
    assert finding.detail.startswith(said)
    assert len(finding.detail) <= 250


def test_a_command_has_an_empty_input() -> None:
    assert once(command('test -z "$(cat)"')).passed


def test_a_command_that_hangs_is_ended_in_time(tmp_path: Path) -> None:
    """`processes.run` has the rest of the rules."""
    pid = tmp_path / "pid"
    endless = command(f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.1; done", timeout=0.8)
    finding = perform(endless, time.monotonic() + 1, interval=1)

    assert (finding.passed, finding.detail) == (False, "still running after 0.8 s")
    assert finding.seconds < 3
    assert not is_alive(int(pid.read_text()))


def test_a_command_that_cannot_be_run_fails() -> None:
    finding = once(command("true \0"))

    assert (finding.passed, finding.detail) == (False, "cannot be run: embedded null byte")


def test_a_process_that_a_command_leaves_does_not_hold_it_up(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    try:
        assert once(command(f"sleep 60 & echo $! > {pid}", timeout=30)).passed
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that stands in for systemctl on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "systemctl"
    program.touch(0o755)
    return program


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("echo LoadState=not-found", "there is no such unit (not-found)"),
        ("exit 1", "there is no such unit (systemctl failed)"),
        ("echo LoadState=loaded; echo ActiveState=failed; echo SubState=failed", "failed (failed)"),
        (ACTIVE.format(since="$now"), "active for "),
        (ACTIVE.format(since="$((now - 60000000))"), "ok"),
        ("exec sleep 60", "systemctl did not answer in 0.5 s"),
    ],
)
def test_a_unit_passes_when_active_for_long_enough(systemctl: Path, script: str, detail: str) -> None:
    systemctl.write_text(f"#!/bin/sh\n{script}")
    check = replace(unit("nginx", stable=30), timeout=0.5 if "sleep" in script else 30)
    problem = _systemd_unit(check)

    assert (problem or "ok").startswith(detail)


def test_a_check_is_tried_until_it_passes(tmp_path: Path) -> None:
    line = f"echo >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) -ge 3"
    finding = perform(command(line), time.monotonic() + 60, interval=0.01)

    assert (finding.passed, finding.tries) == (True, 3)


def test_a_check_is_tried_once_when_there_is_no_time() -> None:
    assert perform(command("exit 1"), time.monotonic() - 100).tries == 1
    assert perform(command("exit 1", within=0), time.monotonic() + 100).tries == 1


def test_the_deadline_ends_a_longer_window() -> None:
    finding = perform(command("exit 1", within=10_000), time.monotonic() + 0.6, interval=0.01)

    assert not finding.passed
    assert finding.tries > 1


@pytest.mark.skipif(
    Path("/run/systemd/system").exists() or not shutil.which("service"), reason="no SysV init here"
)
def test_without_systemd_a_unit_s_name_is_no_shell(tmp_path: Path) -> None:
    finding = once(unit(f"no-such; touch {tmp_path}/made"))

    assert not finding.passed
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_under_upstart_a_unit_s_job_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """service(8) of Debian 12 does not know Upstart."""
    for name in ("initctl", "service"):
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/asked; echo "$2 stop/waiting"\n'
        )
        (tmp_path / name).chmod(0o755)
    (tmp_path / "shop.conf").touch()
    monkeypatch.setattr(upstart, "JOBS", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert once(unit("shop")).detail == "shop stop/waiting"
    assert once(unit("nginx")).passed
    assert (tmp_path / "asked").read_text() == "initctl status shop\nservice nginx status\n"


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd runs here")
def test_a_failed_check_shows_the_end_of_its_service_s_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_log, "_FILES", {"sysv": f"{tmp_path}/{{}}.log"})
    (tmp_path / "shop.log").write_text("ModuleNotFoundError: No module named 'shopp'\n")
    with canned_server(answer("502 Bad Gateway")) as server:
        finding = once(http(server.url, log="shop"))
        assert once(http(server.url, log="other")).detail == "answered 502"
        assert once(http(server.url, status=(502,), log="shop")).detail == "ok"

    assert finding.detail == "answered 502 (the log of shop: ModuleNotFoundError: No module named 'shopp')"


def test_without_systemctl_a_unit_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert str(_systemd_unit(unit("nginx"))).startswith("systemctl cannot be run: ")
