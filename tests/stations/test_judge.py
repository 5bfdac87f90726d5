"""The judge makes the role's checks anew, in a process of its own; what it cannot say is not ready."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pyinfra_solo.checks import Check, command, http, tcp, to_json, unit
from pyinfra_solo.errors import DataError, JudgedError
from pyinfra_solo.stations.judge import Verdict, judge, judge_here
from pyinfra_solo.system.deadline import Deadline
from tests.support.machine import ENGINE
from tests.support.programs import is_alive

HERE = "127.0.0.1"


def judged(*checks: Check, seconds: float = 20, environment: dict[str, str] | None = None) -> Verdict:
    """The verdict of the judge's own process."""
    clean = {**os.environ, "PYTHONPATH": str(ENGINE), **(environment or {})}
    return judge(to_json(checks), Path(sys.executable), clean, Deadline.after(seconds))


class Answering(BaseHTTPRequestHandler):
    """The path is the status: /503 answers 503."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.send_header("Location", "/200")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer((HERE, 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://{HERE}:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_kind_that_holds_is_ready(url: str) -> None:
    port = int(url.rpartition(":")[2])
    verdict = judged(http(f"{url}/200"), http(f"{url}/204", status=(200, 204)), tcp(port), command("true"))
    verdict.require_ready()
    assert [finding.passed for finding in verdict.findings] == [True] * 4


def test_every_kind_that_does_not_hold_is_named_with_its_reason(url: str) -> None:
    with socket.create_server((HERE, 0)) as taken:
        free = int(taken.getsockname()[1])
    checks = [
        http(f"{url}/503", within=0.2), http(f"{url}/302", within=0.2), http(f"http://{HERE}:{free}/", within=0.2),
        tcp(free, within=0.2), command("echo the reason; exit 3", within=0.2), unit("nothing-of-that-name", within=0.2),
    ]  # fmt: skip
    verdict = judged(*checks)
    assert [finding.passed for finding in verdict.findings] == [False] * 6
    details = [finding.detail for finding in verdict.findings]
    assert details[:2] == ["answered 503", "answered 302"]
    assert details[2].startswith("no answer: ")
    assert details[3].startswith("no connection: ")
    assert details[4] == "exit status 3: the reason"
    with pytest.raises(
        JudgedError, match="command echo the reason; exit 3: exit status 3: the reason"
    ) as raised:
        verdict.require_ready()
    assert raised.value.exit_code == 30


def test_one_that_does_not_hold_is_enough_to_say_no(url: str) -> None:
    assert not judged(http(f"{url}/200"), command("false", within=0.1)).ready


def test_a_check_may_become_true_within_its_window(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    verdict = judged(command(f"echo . >> {tries}; test $(wc -l < {tries}) -ge 3", within=20))
    assert verdict.ready
    assert verdict.findings[0].tries == 3


def test_a_window_ends_with_the_run_s_time() -> None:
    assert not judged(command("false", within=3600), seconds=0.5).ready


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    line = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    verdict = judge_here([command(line, within=0.5, timeout=0.5)], Deadline.after(20))
    assert verdict.findings[0].detail.startswith("still running after ")
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_role_without_checks_is_ready() -> None:
    assert judged().ready


def test_a_kind_that_the_engine_does_not_know_is_not_ready() -> None:
    """What it cannot make, it must not pass."""
    with pytest.raises(JudgedError, match="gave no verdict"):
        judged(command("true"), replace(command("true"), kind="oracle"))


def test_a_judge_that_dies_is_not_ready() -> None:
    with pytest.raises(JudgedError, match="gave no verdict"):
        judged(command("kill -9 $PPID"))
    with pytest.raises(JudgedError, match="gave no verdict"):
        judge(to_json([command("true")]), Path("/bin/true"), {}, Deadline.after(5))


def test_a_judge_that_leaves_a_check_out_is_not_ready(tmp_path: Path) -> None:
    """An engine that answers `{"findings": []}` has judged nothing."""
    lazy = tmp_path / "lazy"
    lazy.write_text("#!/bin/sh\ncat > /dev/null\necho '{\"findings\": []}'\n")
    lazy.chmod(0o755)
    assert not judge(to_json([command("true")]), lazy, {}, Deadline.after(5)).ready
    assert judge([], lazy, {}, Deadline.after(5)).ready


def test_a_url_that_is_none_is_refused_when_it_is_declared() -> None:
    with pytest.raises(DataError, match="is not an http"):
        http("ftp://127.0.0.1/")


def test_of_two_checks_of_one_target_the_one_that_fails_is_heard(url: str) -> None:
    """They are called the same: two roles may expect different things of one address."""
    well, wrong = http(f"{url}/200", within=1), http(f"{url}/200", within=1, status=(404,))

    assert judged(well, well).ready
    assert not judged(well, wrong).ready
    assert not judged(wrong, well).ready
