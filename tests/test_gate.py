"""The gate: `ping.html` is there when, and only when, this boot vouches for this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pyinfra_solo.errors import PausedError
from pyinfra_solo.gate import Statement, boot_id, close_gate, kept_statement, open_gate, read_gate
from tests.support.machine import ENGINE

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def statement(**said: object) -> Statement:
    whole = Statement(
        role="web", stage="production", sha="a" * 40, boot_id=boot_id(), instance_id="i-0a1", checks=[],
        python="/usr/bin/python3", run="20261121T000000Z-abcdef", at=1000.0,
    )  # fmt: skip
    return replace(whole, **said)  # type: ignore[arg-type]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "run/gate"


def ping(gate: Path) -> Path:
    return gate / "ping.html"


def claim(gate: Path, said: str | None) -> None:
    """A ping.html, and beside it whatever it is that vouches for it."""
    gate.mkdir(parents=True)
    ping(gate).write_text("ok")
    if said is not None:
        (gate.parent / "statement.json").write_text(said)


def test_a_machine_without_a_gate_is_out(gate: Path) -> None:
    assert (read_gate(gate=gate).open, read_gate(gate=gate).reason) == (False, "never opened")
    assert not gate.exists()


def test_an_open_gate_has_a_page_and_a_statement(gate: Path) -> None:
    open_gate(statement(), gate=gate)
    found = read_gate("i-0a1", gate=gate)

    assert ping(gate).read_text() == "ok"
    assert (found.open, found.since, found.statement) == (True, 1000.0, statement())


def test_the_folder_that_is_served_holds_the_page_alone(gate: Path) -> None:
    open_gate(statement(), gate=gate)
    close_gate("drained", reopenable=True, gate=gate)
    open_gate(statement(), gate=gate)

    assert [path.name for path in gate.iterdir()] == ["ping.html"]


def test_a_closed_gate_says_why_and_since_when_and_the_page_is_gone(gate: Path) -> None:
    open_gate(statement(), gate=gate)

    assert close_gate("the disk is being replaced", gate=gate)
    assert not ping(gate).exists()
    found = read_gate(gate=gate)
    assert (found.open, found.reason) == (False, "the disk is being replaced")
    assert found.since is not None


def test_a_gate_that_is_closed_again_keeps_the_newest_reason_and_the_first_time(gate: Path) -> None:
    open_gate(statement(), gate=gate)
    close_gate("first", gate=gate)
    since = read_gate(gate=gate).since

    assert not close_gate("second", gate=gate)
    assert (read_gate(gate=gate).reason, read_gate(gate=gate).since) == ("second", since)


def test_a_gate_whose_statement_is_of_another_boot_is_closed(gate: Path) -> None:
    """An image that was taken of a machine in service, with /run on its disk."""
    claim(gate, json.dumps(asdict(statement(boot_id=OTHER_BOOT))))
    found = read_gate(gate=gate)

    assert (found.open, found.reason) == (False, "its statement was of another boot")
    assert not ping(gate).exists()


def test_a_gate_whose_statement_is_of_another_instance_is_closed(gate: Path) -> None:
    open_gate(statement(), gate=gate)
    found = read_gate("i-0b2", gate=gate)

    assert (found.open, found.reason) == (False, "its statement was of another instance, i-0a1")
    assert not ping(gate).exists()


@pytest.mark.parametrize("said", [None, "", "{", "[]", '"ok"', "{}", '{"role": "web"}', "\x00"])
def test_a_page_that_nothing_vouches_for_is_removed(gate: Path, said: str | None) -> None:
    claim(gate, said)
    found = read_gate(gate=gate)

    assert (found.open, found.reason) == (False, "ping.html had no statement")
    assert not ping(gate).exists()


def test_a_statement_that_is_not_utf_8_vouches_for_nothing(gate: Path) -> None:
    claim(gate, None)
    (gate.parent / "statement.json").write_bytes(b"\xff\xfe{}")

    assert not read_gate(gate=gate).open


def test_opening_an_open_gate_anew_for_the_same_leaves_it_as_it_is(gate: Path) -> None:
    """A balancer's probe may be under way, and `status` says since when the machine is in."""
    open_gate(statement(at=1000.0), gate=gate)
    before = ping(gate).stat().st_ino
    open_gate(statement(at=2000.0, run="20261121T010000Z-abcdef"), gate=gate)

    assert ping(gate).stat().st_ino == before
    assert read_gate(gate=gate).since == 1000.0


def test_opening_it_for_another_commit_says_so(gate: Path) -> None:
    open_gate(statement(), gate=gate)
    open_gate(statement(sha="b" * 40, at=2000.0), gate=gate)

    assert read_gate(gate=gate).statement == statement(sha="b" * 40, at=2000.0)


def test_an_operator_s_close_keeps_what_the_gate_vouched_for(gate: Path) -> None:
    open_gate(statement(), gate=gate)
    close_gate("a look inside", reopenable=True, gate=gate)

    assert not read_gate(gate=gate).open
    assert kept_statement(gate=gate) == statement()


def test_a_run_does_not_open_what_an_operator_closed_while_it_was_at_work(gate: Path) -> None:
    """Also when the run itself has closed it again since, before its first change."""
    began = time.monotonic()
    close_gate("a core dump is being read", reopenable=True, gate=gate)
    close_gate("a run is changing this machine", gate=gate)
    with pytest.raises(PausedError, match="gate open"):
        open_gate(statement(), began=began, gate=gate)

    assert not ping(gate).exists()
    assert kept_statement(gate=gate) == statement()
    open_gate(statement(), began=time.monotonic(), gate=gate)
    assert ping(gate).exists()


def test_any_other_close_forgets_it(gate: Path) -> None:
    open_gate(statement(), gate=gate)
    close_gate("a run is changing this machine", gate=gate)

    assert kept_statement(gate=gate) is None


def test_what_was_kept_in_another_boot_is_not_kept(gate: Path) -> None:
    open_gate(statement(boot_id=OTHER_BOOT), gate=gate)
    close_gate("a look inside", reopenable=True, gate=gate)

    assert kept_statement(gate=gate) is None


def test_closing_removes_whatever_lies_in_the_gate(gate: Path, tmp_path: Path) -> None:
    """Also a folder, or a link to something that must stay."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    open_gate(statement(), gate=gate)
    (gate / "a folder").mkdir()
    (gate / "a folder/file").touch()
    (gate / "a link").symlink_to(kept)

    assert close_gate("closed", gate=gate)
    assert [path.name for path in gate.iterdir()] == []
    assert (kept / "file").exists()


def test_a_folder_in_place_of_the_page_is_no_open_gate(gate: Path) -> None:
    ping(gate).mkdir(parents=True)

    assert not read_gate(gate=gate).open
    assert [path.name for path in gate.iterdir()] == []


@pytest.mark.parametrize("reason", ["", "two\nlines", "\x1b[2J", "\udcff", "“quoted”", "x" * 100_000])
def test_a_reason_may_be_any_text(gate: Path, reason: str) -> None:
    close_gate(reason, gate=gate)

    assert read_gate(gate=gate).reason == reason


def test_whoever_makes_the_gate_the_web_server_may_come_in(gate: Path) -> None:
    """An operator's shell may have `umask 077`, and nginx serves as another account."""
    script = "import sys; from pathlib import Path; from pyinfra_solo.gate import *; "
    script += "close_gate('x', gate=Path(sys.argv[1])); open_gate(Statement(**eval(sys.argv[2])), gate=Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", script, str(gate), repr(asdict(statement()))],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, umask=0o077, check=True,
    )  # fmt: skip

    assert [oct(path.stat().st_mode & 0o777) for path in (gate.parent, gate, ping(gate))] == [
        "0o755",
        "0o755",
        "0o644",
    ]


def test_who_looks_while_it_opens_and_closes_changes_nothing(gate: Path) -> None:
    """`status` may be asked at any time; it must not close what was opened that very moment, nor put
    a reason of its own in place of the one that was given."""
    done, looked = threading.Event(), 0

    def looking() -> None:
        nonlocal looked
        while not done.is_set():
            read_gate(gate=gate)
            looked += 1

    others = [threading.Thread(target=looking) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # a look is cut short at any of its steps
    for other in others:
        other.start()
    try:
        for number in range(150):
            open_gate(statement(run=str(number)), gate=gate)
            assert ping(gate).exists()
            close_gate(f"close {number}", gate=gate)
            assert read_gate(gate=gate).reason == f"close {number}"
    finally:
        sys.setswitchinterval(interval)
        done.set()
        for other in others:
            other.join()
    assert looked
