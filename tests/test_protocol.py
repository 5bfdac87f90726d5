"""The protocol between an image's engine and a checkout's, which may be older or newer."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pyinfra_solo import protocol
from pyinfra_solo.errors import ConvergeError, JudgedError
from pyinfra_solo.protocol import Request, RunOptions
from pyinfra_solo.stations.converge import Engine, converge
from pyinfra_solo.stations.judge import judge
from pyinfra_solo.system.deadline import Deadline
from tests.support.machine import ENGINE

REQUEST = Request(
    protocol=protocol.VERSION, root="/", role="web", stage="staging", mode="converge", operation_timeout=1.0,
    drain="on-change", options=RunOptions(),
)  # fmt: skip


def ask(module: str, message: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Send a message to this working tree's own executor or checks."""
    return subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(message),
        env={"PYTHONPATH": str(ENGINE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def engine_that_answers(folder: Path, answer: str) -> Engine:
    """An engine whose executor and checks read the request and print this line."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\ncat <<'END'\n{answer}\nEND\n")
    program.chmod(0o755)
    return Engine(python=program, environment={"PATH": "/usr/bin:/bin"})


def start(engine: Engine) -> None:
    converge(
        REQUEST, engine, deadline=Deadline.after(20), observe=lambda _event: None, events_file=None, lock=()
    )


@pytest.mark.parametrize(
    ("version", "cure"), [(0, "Bake a new image."), (2, "Update the engine in the ops repo.")]
)
def test_executor_refuses_another_version_by_its_number(version: int, cure: str) -> None:
    """0: an older image, newer fields unknown to both; 2: a newer image and an ops repo of yesterday."""
    done = ask(protocol.EXECUTOR, {"protocol": version, "a newer field": True})
    message = f"The image's engine speaks protocol {version}, the ops repo's 1. {cure}"
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"event": "Failed", "code": 1, "message": message}
    ]


@pytest.mark.parametrize(
    ("version", "cure"), [(0, "Update the engine in the ops repo."), (2, "Bake a new image.")]
)
def test_line_refuses_an_executor_of_another_version(tmp_path: Path, version: int, cure: str) -> None:
    engine = engine_that_answers(tmp_path, json.dumps({"event": "Started", "protocol": version}))
    with pytest.raises(ConvergeError) as raised:
        start(engine)
    assert str(raised.value) == f"The image's engine speaks protocol 1, the ops repo's {version}. {cure}"


@pytest.mark.parametrize("version", [0, 2])
def test_checks_and_judge_refuse_another_version_by_its_number(tmp_path: Path, version: int) -> None:
    done = ask(protocol.CHECKS, {"protocol": version})
    assert (done.returncode, done.stdout) == (1, "")
    assert f"speaks protocol {version}, the ops repo's 1." in done.stderr
    engine = engine_that_answers(tmp_path, json.dumps({"protocol": version, "findings": []}))
    with pytest.raises(ConvergeError, match=f"speaks protocol 1, the ops repo's {version}."):
        judge([], engine, Deadline.after(20))


def test_option_that_the_engine_does_not_know_is_refused() -> None:
    """An image that asks for something new must not be answered by an engine that ignores it."""
    message = msgspec.to_builtins(REQUEST)
    assert protocol.decode_request(json.dumps(message).encode(), Request) == REQUEST
    message["options"]["newer"] = True
    with pytest.raises(ConvergeError, match=r"does not understand the image's request: .*`newer`"):
        protocol.decode_request(json.dumps(message).encode(), Request)


def test_option_at_its_default_is_not_sent() -> None:
    """So an older engine refuses a new option only when it is used."""
    assert msgspec.json.encode(RunOptions()) == b"{}"
    assert msgspec.json.encode(RunOptions(native=False)) == b'{"native":false}'


def test_events_of_a_newer_engine_are_ignored_and_known_ones_read() -> None:
    assert protocol.decode_event(b'{"event": "Newer", "x": 1}') is None
    for malformed in (b"no JSON", b"{}", b'{"event": "Failed", "code": "1"}', b'{"event": "Started"}'):
        with pytest.raises(ConvergeError, match="sent an event that is not understood"):
            protocol.decode_event(malformed)
    assert protocol.decode_event(b'{"event": "Done", "newer": 1}') == protocol.Done()


@pytest.mark.parametrize("answer", ['{"event": "Done"}', "", '{"event": "Started", "protocol": 1}'])
def test_executor_that_leaves_events_out_has_not_converged(tmp_path: Path, answer: str) -> None:
    with pytest.raises(ConvergeError, match="The converge ended with exit status 0"):
        start(engine_that_answers(tmp_path, answer))


STARTED: dict[str, object] = {"event": "Started", "protocol": 1}
DONE: dict[str, object] = {"event": "Done"}
DECLARED: dict[str, object] = {"event": "Declared", "roles": ["web"], "checks": []}
TWO: dict[str, object] = {"event": "OperationsDeclared", "names": ["one", "two"]}
ONE_ENDED: dict[str, object] = {"event": "OperationEnded", "name": "one", "changed": False}
TWO_ENDED: dict[str, object] = {"event": "OperationEnded", "name": "two", "changed": True}


def events(*found: dict[str, object]) -> str:
    return "\n".join(json.dumps(event) for event in found)


@pytest.mark.parametrize(
    "found",
    [
        [STARTED, DECLARED, TWO, ONE_ENDED, DONE],
        [STARTED, DECLARED, TWO, TWO_ENDED, ONE_ENDED, DONE],
        [STARTED, DECLARED, TWO, ONE_ENDED, TWO_ENDED | {"failed": True}, DONE],
        [STARTED, DECLARED, ONE_ENDED, TWO_ENDED, DONE],
        [STARTED, DECLARED | {"roles": ["worker"]}, TWO, ONE_ENDED, TWO_ENDED, DONE],
        [STARTED, DECLARED, DECLARED, TWO, ONE_ENDED, TWO_ENDED, DONE],
        [STARTED, DECLARED, TWO, ONE_ENDED, TWO_ENDED, DONE, TWO_ENDED],
    ],
    ids=[
        "too few",
        "other order",
        "one failed",
        "none declared",
        "other role",
        "declared twice",
        "after the end",
    ],
)
def test_events_that_contradict_a_success_are_a_failure(
    tmp_path: Path, found: list[dict[str, object]]
) -> None:
    with pytest.raises(ConvergeError, match="The ops repo's engine reported"):
        start(engine_that_answers(tmp_path, events(*found)))


def test_events_of_all_operations_in_order_are_a_success(tmp_path: Path) -> None:
    engine = engine_that_answers(tmp_path, events(STARTED, DECLARED, TWO, ONE_ENDED, TWO_ENDED, DONE))
    changes = converge(
        REQUEST, engine, deadline=Deadline.after(20), observe=lambda _event: None, events_file=None, lock=()
    )
    assert changes.changed == 1


@pytest.mark.parametrize("code", [20, 21, 64])
def test_failure_of_the_lines_own_kind_is_none_of_an_executor(tmp_path: Path, code: int) -> None:
    """21 would leave an open gate alone, 20 would hide the run."""
    failed: dict[str, object] = {"event": "Failed", "code": code, "message": "no"}
    with pytest.raises(ConvergeError, match="no") as raised:
        start(engine_that_answers(tmp_path, events(STARTED, failed)))
    assert raised.value.exit_code == 1


@pytest.mark.parametrize(
    "finding",
    [{"check": "command other"}, {"passed": "false"}, {"tries": "x"}],
    ids=["another check", "a text for true", "a text for a number"],
)
def test_finding_that_is_not_of_its_check_is_not_ready(tmp_path: Path, finding: dict[str, object]) -> None:
    right = {"check": "command true", "passed": True, "detail": "ok", "tries": 1, "seconds": 0.1}
    checks = [{"kind": "command", "target": "true"}]

    def judged(found: dict[str, object]) -> bool:
        answer = json.dumps({"protocol": 1, "findings": [found]})
        return judge(checks, engine_that_answers(tmp_path, answer), Deadline.after(20)).ready

    assert judged(right)
    with pytest.raises(JudgedError, match="no full answer"):
        judged(right | finding)
