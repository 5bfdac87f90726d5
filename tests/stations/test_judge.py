"""The judge performs checks in another process; no whole answer from it is not ready. Kinds: test_checks.py."""

import os
import socket
import ssl
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pyinfra_solo.checks import Check, Finding, command, http, to_json
from pyinfra_solo.errors import JudgedError
from pyinfra_solo.gate import open_gate
from pyinfra_solo.stations.converge import Engine
from pyinfra_solo.stations.judge import Verdict, judge, require_no_other_page
from pyinfra_solo.system.deadline import Deadline
from tests.support.loopback import answer, canned_server, silent_server
from tests.support.machine import ENGINE
from tests.test_gate import statement


def judged(*checks: Check, seconds: float = 20) -> Verdict:
    """Judge by this working tree's engine."""
    engine = Engine(python=Path(sys.executable), environment={**os.environ, "PYTHONPATH": str(ENGINE)})
    return judge(to_json(checks), engine, Deadline.after(seconds))


def test_checks_that_all_pass_are_ready() -> None:
    verdict = judged(command("true"), command("test -d /"))
    verdict.require_ready()
    assert [finding.passed for finding in verdict.findings] == [True, True]


def test_failed_checks_are_named_with_their_reasons() -> None:
    verdict = judged(
        command("echo the reason; exit 3", within=0.1), command("true"), command("false", within=0.1)
    )
    assert [finding.passed for finding in verdict.findings] == [False, True, False]
    with pytest.raises(JudgedError) as raised:
        verdict.require_ready()
    assert raised.value.exit_code == 30
    assert "command echo the reason; exit 3: exit status 3: the reason; command false:" in str(raised.value)


def test_one_failed_check_of_two_with_one_target_is_enough() -> None:
    """Two roles may expect different things of one target, and both findings have its name."""
    passes, fails = command("sleep 0.3"), command("sleep 0.3", timeout=0.1, within=0.1)
    assert judged(passes, passes).ready
    assert not judged(passes, fails).ready
    assert not judged(fails, passes).ready


def test_window_of_a_check_ends_with_the_runs_deadline() -> None:
    assert not judged(command("false", within=3600), seconds=0.5).ready


def test_role_without_checks_is_ready() -> None:
    assert judged().ready


def test_kind_that_the_engine_does_not_know_is_not_ready() -> None:
    """A check that it cannot perform must not pass."""
    with pytest.raises(JudgedError, match="ended with exit status"):
        judged(command("true"), replace(command("true"), kind="oracle"))


def test_process_that_dies_or_does_not_answer_is_not_ready() -> None:
    with pytest.raises(JudgedError, match="ended with exit status"):
        judged(command("kill -9 $PPID"))
    with pytest.raises(JudgedError, match="ended with exit status 0 and no full answer"):
        judge(to_json([command("true")]), Engine(python=Path("/bin/true"), environment={}), Deadline.after(5))


def test_answer_that_leaves_a_check_out_is_not_ready(tmp_path: Path) -> None:
    """An engine that answers `{"findings": []}` has judged nothing."""
    lazy = tmp_path / "lazy"
    lazy.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"protocol": 1, "findings": []}\'\n')
    lazy.chmod(0o755)
    engine = Engine(python=lazy, environment={})
    with pytest.raises(JudgedError, match="no full answer"):
        judge(to_json([command("true")]), engine, Deadline.after(5))
    assert judge([], engine, Deadline.after(5)).ready


def asking(*answers: bytes, path: str = "/healthz", gate_is_open: bool = False) -> list[bytes]:
    """Let the judge ask a server that sends these answers. Return what it was asked. Raises JudgedError."""
    if gate_is_open:
        open_gate(statement())
    with canned_server(*answers) as server:
        require_no_other_page(to_json([http(f"{server.url}{path}"), command("true")]))
        return server.asked


def test_page_that_answers_while_the_gate_is_closed_is_a_failure() -> None:
    """A balancer would send traffic whatever the gate says."""
    with pytest.raises(
        JudgedError, match=r"Port \d+ answers /ping.html with 200 although the gate is closed"
    ):
        asking(answer("200 OK", b"of an older image"))


@pytest.mark.parametrize(
    "answers",
    [answer("503 Service Unavailable"), answer("404 Not Found"), answer("301 Moved", b"", "Location: /"), b"", b"200 200"],
    ids=["closed", "not there", "elsewhere", "no answer", "no HTTP"],
)  # fmt: skip
def test_closed_gate_may_have_any_answer_but_200(answers: bytes) -> None:
    (asked,) = asking(answers)
    assert asked.startswith(b"GET /ping.html HTTP/1.0\r\n")


def test_page_of_an_open_gate_is_the_gates_own() -> None:
    """With `drain = "never"` the gate is open all the time."""
    assert len(asking(answer("200 OK", b"ok"), gate_is_open=True)) == 1
    with pytest.raises(JudgedError, match=r"Port \d+ answers /ping.html with another page than the gate's"):
        asking(answer("200 OK", b"<html>"), gate_is_open=True)


def test_other_page_is_named_beside_a_check_that_fails() -> None:
    finding = Finding(check="tcp 127.0.0.1:9", passed=False, detail="no connection", tries=1, seconds=0.1)
    with pytest.raises(
        JudgedError, match=r"checks failed: tcp .*: no connection\. Port 80 answers\. The gate"
    ):
        Verdict([finding]).require_ready("Port 80 answers.")
    with pytest.raises(JudgedError, match=r"^Port 80 answers\. The gate stays closed"):
        Verdict([]).require_ready("Port 80 answers.")


def test_answer_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyinfra_solo.stations.page._SECONDS", 0.3)
    with silent_server() as port:
        require_no_other_page(
            to_json([http(f"{scheme}://127.0.0.1:{port}/") for scheme in ("http", "https")])
        )


def test_page_behind_tls_is_asked_too(tmp_path: Path) -> None:
    """Its certificate is for another name, and known to nobody."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop", "-days", "1"]
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as stream:
                stream.recv(4096)
                stream.sendall(answer("200 OK"))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(JudgedError, match=f"Port {port} answers"):
            require_no_other_page(to_json([http(f"https://localhost:{port}/")]))
        thread.join()
