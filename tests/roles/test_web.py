"""The nginx of the role web: the real one, on a port of the loopback."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import pytest

from pyinfra_solo.operations import service, validated
from pyinfra_solo.operations.service import Init
from roles.web import Web, application, healthy
from tests.support.git import free_port
from tests.support.machine import REPOSITORY
from tests.support.programs import wait_for

TEMPLATE = REPOSITORY / "roles/web/templates/nginx.conf.j2"
DATA = Web(app_repo="https://git.example.com/shop.git")

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")


def config(folder: Path, data: Web, gate: Path) -> Path:
    """The template's file, its logs and pid below `folder`, its workers as who runs the test."""
    text = validated.rendered(TEMPLATE, {"gate": str(gate), "app_address": data.app_address, **asdict(data)})
    text = text.replace("/var/log/nginx", str(folder)).replace("/run/nginx.pid", f"{folder}/pid")
    text = text.replace("/run/service-shop", str(folder)).replace("user www-data;", "user root;")
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        replace(DATA, web_ipv6=True, web_workers=3, web_body_mib=100),
        replace(DATA, web_port=65535, app_port=1, web_keepalive=1),
    ],
)
def test_nginx_finds_the_file_good(tmp_path: Path, data: Web) -> None:
    path = config(tmp_path, data, tmp_path)
    done = subprocess.run(
        ["nginx", "-t", "-q", "-e", tmp_path / "error.log", "-c", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@dataclass
class Site:
    """nginx at `port`, the gate's folder, and an app that notes what it is asked."""

    port: int
    gate: Path
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def get(self, path: str, method: str = "GET", **headers: str) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(
            method, path, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer


class OnSocket(ThreadingHTTPServer):
    """On a socket that is a file, whose path is its address."""

    address_family = socket.AF_UNIX
    server_bind = TCPServer.server_bind


@pytest.fixture(params=["socket", "port"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(free_port(), tmp_path / "run/gate")

    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            """Says nothing."""

    on_port = request.param == "port"
    path = str(tmp_path / "gunicorn.socket")
    with ThreadingHTTPServer(("127.0.0.1", 0), App) if on_port else OnSocket(path, App) as server:  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port if on_port else None
        data = replace(DATA, web_port=made.port, app_port=port, web_workers=1)
        file = config(tmp_path, data, made.gate)
        nginx = subprocess.Popen(["nginx", "-e", tmp_path / "error.log", "-c", file, "-g", "daemon off;"])
        wait_for("nginx answers", lambda: answers(made), 10)
        yield made
        nginx.send_signal(signal.SIGTERM)
        nginx.wait(timeout=10)
        server.shutdown()


def answers(site: Site) -> bool:
    try:
        return bool(site.get("/ping.html").status)
    except OSError:
        return False


def open_gate(site: Site) -> None:
    site.gate.mkdir(parents=True, exist_ok=True)
    (site.gate / "ping.html").write_text("ok\n")


def test_the_gate_is_closed_before_its_folder_is_there(site: Site) -> None:
    assert site.get("/ping.html").status == 503


def test_the_gate_is_closed_in_an_empty_folder(site: Site) -> None:
    site.gate.mkdir(parents=True)
    assert site.get("/ping.html").status == 503


@pytest.mark.parametrize("host", ["10.0.0.1", "shop.example.com", "a.b.c:8080"])
def test_an_open_gate_answers_whatever_the_host(site: Site, host: str) -> None:
    open_gate(site)
    assert site.get("/ping.html", Host=host).status == 200
    (site.gate / "ping.html").unlink()
    assert site.get("/ping.html", Host=host).status == 503


@pytest.mark.parametrize("is_open", [True, False])
def test_no_answer_of_the_gate_may_be_stored(site: Site, is_open: bool) -> None:
    if is_open:
        open_gate(site)
    answer = site.get("/ping.html")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["ETag"] is None


def test_an_open_gate_is_200_for_a_client_that_has_it_already(site: Site) -> None:
    open_gate(site)
    assert site.get("/ping.html", If_Modified_Since="Fri, 01 Jan 2100 00:00:00 GMT").status == 200


@pytest.mark.parametrize(
    "path", ["/ping.html", "/ping.html?x=1", "/%70ing.html", "//ping.html", "/a/../ping.html"]
)
def test_the_app_is_never_asked_for_the_gate(site: Site, path: str) -> None:
    assert site.get(path).status == 503
    open_gate(site)
    assert site.get(path).status == 200
    assert site.asked == []


def test_only_the_gates_one_file_is_served(site: Site) -> None:
    open_gate(site)
    (site.gate / "other.html").write_text("not for you")
    site.get("/other.html")
    assert [path for path, _ in site.asked] == ["/other.html"], "the app was asked"


def test_the_app_is_told_who_asks(site: Site) -> None:
    assert site.get("/basket", Host="shop.example.com").status == 200
    path, headers = site.asked[-1]
    assert (path, headers["host"], headers["x-forwarded-for"]) == ("/basket", "shop.example.com", "127.0.0.1")
    assert headers["x-forwarded-proto"] == "http"
    site.get("/basket", X_Forwarded_Proto="https")
    assert site.asked[-1][1]["x-forwarded-proto"] == "https"


def test_what_is_healthy_is_asked_through_nginx() -> None:
    checks = healthy(replace(DATA, web_port=8080, app_health="/well"))
    assert [str(check) for check in checks] == [
        "unit nginx",
        "unit shop",
        "tcp 127.0.0.1:8080",
        "http http://127.0.0.1:8080/well",
    ]


@pytest.mark.parametrize("init", ["systemd", "upstart", "sysv"])
def test_app_listens_where_no_other_account_can(init: Init) -> None:
    """Any account can take a port of the loopback while the app restarts, and gets the users' requests."""
    text = service.render(application(DATA), init)
    assert "unix:/run/service-shop/gunicorn.socket" in text
    assert "127.0.0.1" not in text
    made = "RuntimeDirectory=service-shop\n" if init == "systemd" else "-o shop -g shop /run/service-shop "
    assert made in text
    assert "127.0.0.1:8000" in service.render(application(replace(DATA, app_port=8000)), init)


@pytest.mark.parametrize("init", ["systemd", "upstart", "sysv"])
def test_the_app_runs_from_its_current_release_under_every_init(init: Init) -> None:
    text = service.render(application(DATA), init)
    assert re.search(
        r"/srv/shop/current/\.venv/bin/python.* -m.* gunicorn|--startas /srv/shop/current",
        text.replace('"', ""),
    )
