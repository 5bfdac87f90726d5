"""The gate: `ping.html` is there when, and only when, this boot vouches for this machine."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from pyinfra_solo import paths
from pyinfra_solo.errors import PausedError
from pyinfra_solo.gate import GatePolicy, Statement, boot_id, close_gate, kept_statement, open_gate, read_gate
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.lock import held
from tests.support.machine import ENGINE

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


def statement(**values: object) -> Statement:
    whole = Statement(
        role="web", stage="production", sha="a" * 40, boot_id=boot_id(), instance_id="i-0a1", checks=[],
        python="/usr/bin/python3", run="20261121T000000Z-abcdef", at=1000.0,
    )  # fmt: skip
    return replace(whole, **values)  # type: ignore[arg-type]


@pytest.fixture
def gate() -> Path:
    return paths.GATE


def ping(gate: Path) -> Path:
    return gate / "ping.html"


def claim(gate: Path, text: bytes | None) -> None:
    """Write a ping.html, and beside it this text as its statement."""
    gate.mkdir(parents=True)
    ping(gate).write_text("ok")
    if text is not None:
        (gate.parent / "statement.json").write_bytes(text)


def test_gate_of_a_new_machine_is_closed(gate: Path) -> None:
    assert (read_gate().open, read_gate().reason) == (False, "never opened")
    assert not gate.exists()


def test_open_gate_has_a_page_and_a_statement(gate: Path) -> None:
    open_gate(statement())
    found = read_gate("i-0a1")

    assert ping(gate).read_text() == "ok"
    assert (found.open, found.since, found.statement) == (True, 1000.0, statement())


def test_served_folder_holds_the_page_alone(gate: Path) -> None:
    open_gate(statement())
    close_gate("drained", reopenable=True)
    open_gate(statement())

    assert [path.name for path in gate.iterdir()] == ["ping.html"]


def test_closed_gate_has_a_reason_a_time_and_no_page(gate: Path) -> None:
    open_gate(statement())

    assert close_gate("the disk is being replaced")
    assert not ping(gate).exists()
    found = read_gate()
    assert (found.open, found.reason) == (False, "the disk is being replaced")
    assert found.since is not None


def test_second_close_keeps_the_newest_reason_and_the_first_time() -> None:
    open_gate(statement())
    close_gate("first")
    since = read_gate().since

    assert not close_gate("second")
    assert (read_gate().reason, read_gate().since) == ("second", since)


def test_gate_with_a_statement_of_another_boot_is_closed(gate: Path) -> None:
    """An image that was taken of a machine in service, with /run on its disk."""
    claim(gate, json.dumps(asdict(statement(boot_id=OTHER_BOOT))).encode())
    found = read_gate()

    assert (found.open, found.reason) == (False, "its statement was of another boot")
    assert not ping(gate).exists()


def test_gate_with_a_statement_of_another_instance_is_closed(gate: Path) -> None:
    open_gate(statement())
    found = read_gate("i-0b2")

    assert (found.open, found.reason) == (False, "its statement was of another instance, i-0a1")
    assert not ping(gate).exists()


@pytest.mark.parametrize(
    "text", [None, b"", b"{", b"[]", b'"ok"', b"{}", b'{"role": "web"}', b"\x00", b"\xff\xfe{}"]
)
def test_page_without_a_valid_statement_is_removed(gate: Path, text: bytes | None) -> None:
    claim(gate, text)
    found = read_gate()

    assert (found.open, found.reason) == (False, "ping.html had no statement")
    assert not ping(gate).exists()


def test_second_open_for_the_same_commit_leaves_the_gate_untouched(gate: Path) -> None:
    """A balancer's probe may be under way, and `status` says since when the machine is in."""
    open_gate(statement(at=1000.0))
    before = ping(gate).stat().st_ino
    open_gate(statement(at=2000.0, run="20261121T010000Z-abcdef"))

    assert ping(gate).stat().st_ino == before
    assert read_gate().since == 1000.0


def test_second_open_for_another_commit_replaces_the_statement() -> None:
    open_gate(statement())
    open_gate(statement(sha="b" * 40, at=2000.0))

    assert read_gate().statement == statement(sha="b" * 40, at=2000.0)


def test_close_by_hand_keeps_the_statement() -> None:
    open_gate(statement())
    close_gate("maintenance", reopenable=True)

    assert not read_gate().open
    assert kept_statement() == statement()


def test_gate_closed_by_hand_during_a_run_is_not_opened_by_it(gate: Path) -> None:
    """Also when the run itself has closed it since, before its first change."""
    began = time.monotonic()
    close_gate("a core dump is being read", reopenable=True)
    close_gate("a run is changing this machine")
    with pytest.raises(PausedError, match="gate open"):
        open_gate(statement(), began=began)

    assert not ping(gate).exists()
    assert kept_statement() == statement()
    open_gate(statement(), began=time.monotonic())
    assert ping(gate).exists()


def test_close_by_a_run_removes_the_statement() -> None:
    open_gate(statement())
    close_gate("a run is changing this machine")

    assert kept_statement() is None


def test_statement_kept_in_another_boot_is_ignored() -> None:
    open_gate(statement(boot_id=OTHER_BOOT))
    close_gate("maintenance", reopenable=True)

    assert kept_statement() is None


def test_close_removes_whatever_is_in_the_gates_folder(gate: Path, tmp_path: Path) -> None:
    """Also a folder, or a link to something that must stay."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    open_gate(statement())
    (gate / "a folder").mkdir()
    (gate / "a folder/file").touch()
    (gate / "a link").symlink_to(kept)

    assert close_gate("closed")
    assert [path.name for path in gate.iterdir()] == []
    assert (kept / "file").exists()


def test_folder_in_place_of_the_page_is_a_closed_gate(gate: Path) -> None:
    ping(gate).mkdir(parents=True)

    assert not read_gate().open
    assert [path.name for path in gate.iterdir()] == []


@pytest.mark.parametrize("reason", ["", "two\nlines", "\x1b[2J", "\udcff", "“quoted”", "x" * 100_000])
def test_reason_may_be_any_text(reason: str) -> None:
    close_gate(reason)

    assert read_gate().reason == reason


def test_folders_are_readable_whatever_the_umask(gate: Path) -> None:
    """An operator's shell may have `umask 077`, and nginx serves as another account."""
    script = "import sys; from pyinfra_solo.gate import *; "
    script += "close_gate('x'); open_gate(Statement(**eval(sys.argv[1])))"
    subprocess.run(
        [sys.executable, "-c", script, repr(asdict(statement()))],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, umask=0o077, check=True,
    )  # fmt: skip

    assert [oct(path.stat().st_mode & 0o777) for path in (gate.parent, gate, ping(gate))] == [
        "0o755",
        "0o755",
        "0o644",
    ]


def test_reader_changes_nothing_while_the_gate_opens_and_closes(gate: Path) -> None:
    """`status` may run at any time. It must neither close a gate that was opened at that moment, nor
    replace the reason of a close."""
    done, reads = threading.Event(), 0

    def read() -> None:
        nonlocal reads
        while not done.is_set():
            read_gate()
            reads += 1

    others = [threading.Thread(target=read) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # a read is interrupted at any of its steps
    for other in others:
        other.start()
    try:
        for number in range(150):
            open_gate(statement(run=str(number)))
            assert ping(gate).exists()
            close_gate(f"close {number}")
            assert read_gate().reason == f"close {number}"
    finally:
        sys.setswitchinterval(interval)
        done.set()
        for other in others:
            other.join()
    assert reads


@dataclass(frozen=True)
class Policy:
    """A policy, and whether an open gate is open after each of its decisions."""

    at_boot: bool
    drain: str
    before_run: bool
    before_change: bool
    on_failure: bool
    on_failure_in_doubt: bool

    def made(self) -> GatePolicy:
        return GatePolicy(at_boot=self.at_boot, drain=self.drain)


POLICIES = [
    Policy(True, "on-change", False, False, False, False),
    Policy(True, "always", False, False, False, False),
    Policy(True, "never", False, False, False, False),
    Policy(False, "on-change", True, False, True, False),
    Policy(False, "always", False, False, True, False),
    Policy(False, "never", True, True, True, False),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("decision", ["before_run", "before_change", "on_failure", "on_failure_in_doubt"])
def test_policy_closes_an_open_gate_or_leaves_it(policy: Policy, decision: str) -> None:
    open_gate(statement())
    made = policy.made()
    decisions: dict[str, Callable[[], object]] = {
        "before_run": made.before_run,
        "before_change": made.before_change,
        "on_failure": partial(made.on_failure, "a failure", in_doubt=False),
        "on_failure_in_doubt": partial(made.on_failure, "a failure", in_doubt=True),
    }
    with held("a run", Deadline.after(5), print):
        decisions[decision]()
        assert read_gate().open == getattr(policy, decision)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_policy_never_keeps_the_statement_of_a_closed_gate_at_a_change(policy: Policy) -> None:
    """`gate open` must not open a machine that has changed since it was judged."""
    open_gate(statement())
    close_gate("maintenance", reopenable=True)

    assert not policy.made().before_change()
    assert kept_statement() is None


@pytest.mark.parametrize("drain", ["on-change", "never"])
def test_policy_before_a_run_closes_a_gate_of_another_boot(drain: str) -> None:
    open_gate(statement(boot_id=OTHER_BOOT))
    GatePolicy(at_boot=False, drain=drain).before_run()

    assert not paths.GATE.joinpath("ping.html").exists()


def test_policy_before_a_change_returns_whether_it_closed_the_gate() -> None:
    open_gate(statement())

    with held("a run", Deadline.after(5), print):
        assert not GatePolicy(at_boot=False, drain="never").before_change()
    open_gate(statement())
    assert GatePolicy(at_boot=False).before_change()
    assert not GatePolicy(at_boot=False).before_change()


def change_under_an_open_gate() -> None:
    """Begin a change with drain never, and be killed: the lock is free, and nothing else was done."""
    open_gate(statement())
    with held("a run", Deadline.after(5), print):
        GatePolicy(at_boot=False, drain="never").before_change()
        assert read_gate().open, "the run is at work"


UNFINISHED = f"run {os.getpid()} began to change this machine under an open gate, and did not end"


def test_gate_of_a_killed_run_with_drain_never_is_closed_by_the_next_read(gate: Path) -> None:
    change_under_an_open_gate()
    found = read_gate()

    assert (found.open, found.reason) == (False, UNFINISHED)
    assert not ping(gate).exists()
    assert kept_statement() is None, "`gate open` must not vouch for a machine that is half done"


def test_gate_of_a_killed_run_stays_closed_after_a_close_by_hand() -> None:
    """The operator's close keeps the statement, which is no longer true."""
    open_gate(statement())
    with held("a run", Deadline.after(5), print):
        GatePolicy(at_boot=False, drain="never").before_change()
        close_gate("maintenance", reopenable=True)
    assert not read_gate().open
    assert kept_statement() is None


def test_run_that_vouches_anew_leaves_no_mark_of_its_change() -> None:
    change_under_an_open_gate()
    open_gate(statement())

    assert read_gate().open


def test_run_that_cannot_mark_its_change_closes_the_gate(gate: Path) -> None:
    """As on a full tmpfs: here no file may grow (setrlimit(2))."""
    open_gate(statement())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with held("a run", Deadline.after(5), print):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            assert GatePolicy(at_boot=False, drain="never").before_change()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not ping(gate).exists()


def test_gate_closed_while_a_run_opens_it_stays_closed(gate: Path) -> None:
    """Whichever comes first: `gate close` takes no run lock."""
    for _ in range(100):
        began = time.monotonic()
        closing = threading.Thread(target=close_gate, args=("maintenance",), kwargs={"reopenable": True})
        closing.start()
        with suppress(PausedError):
            open_gate(statement(), began=began)
        closing.join()
        assert not ping(gate).exists()


def test_reason_of_a_closed_gate_names_a_failed_fence(gate: Path) -> None:
    gate.mkdir(parents=True)
    (gate.parent / "fence.failed").write_text("the fence failed: remove /var/www/html/ping.html\n")
    close_gate("booting")
    close_gate(f"{read_gate().reason}")

    assert read_gate().reason == "booting; the fence failed: remove /var/www/html/ping.html"
