"""Another account than root sees whether the gate is open, and never why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo import paths
from pyinfra_solo.gate import Statement, boot_id, close_gate, open_gate
from tests.support.machine import ENGINE

SECRET = "the-secret-token"  # noqa: S105 - a test's
STATEMENT = Statement(
    role="web", stage="production", sha="a" * 40, boot_id=boot_id(), instance_id=None,
    checks=[{"kind": "command", "target": SECRET}], python="/usr/bin/python3", run="20261121T000000Z-abcdef", at=1000.0,
)  # fmt: skip
READ = """
import os, sys
from pathlib import Path
from pyinfra_solo import paths
paths.GATE = Path(sys.argv[1])
import pyinfra_solo.gate, pyinfra_solo.report.status as status, json
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
found = status.Status(gate=pyinfra_solo.gate.read_gate(), last=None, running=None)
print(json.dumps([found.gate.open, found.gate.reason, status._gate(found.gate)]))
"""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A gate that another account can reach; pytest's own folders are for root alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setattr(paths, "GATE", folder / "run/gate")
    yield paths.GATE
    shutil.rmtree(folder)


def as_nobody(gate: Path) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(gate)],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_statement_and_reason_are_for_root_alone(gate: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        open_gate(STATEMENT)
        modes = {
            path.name: path.stat().st_mode & 0o777
            for path in (gate.parent / "statement.json", gate / "ping.html")
        }
        close_gate(SECRET)
    finally:
        os.umask(before)

    assert modes == {"statement.json": 0o600, "ping.html": 0o644}
    assert (gate.parent / "closed.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="reads as another account")
def test_another_account_sees_the_state_without_the_reason(gate: Path) -> None:
    close_gate(SECRET)
    assert as_nobody(gate) == [False, "only root may read why", "gate      closed: only root may read why"]
    open_gate(STATEMENT)
    assert as_nobody(gate) == [True, "only root may read why", "gate      open: only root may read why"]
    assert (gate / "ping.html").exists()
