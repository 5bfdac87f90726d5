"""A child of another account neither reads nor changes what root's tool has printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pyinfra_solo.operations import prelude
from tests.system.test_processes_limit import FORGES

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives up an account")
ATTACKS = ["os.pread(1, 9, 0)", "os.pwrite(1, b'FORGED', 0)", "os.ftruncate(1, 0)", "os.open('/proc/self/fd/1', os.O_RDWR)"]  # fmt: skip


@as_root
@pytest.mark.parametrize("attack", ATTACKS)
def test_captured_output_is_kept_from_another_account(attack: str) -> None:
    """pwrite(2) appends, whatever its offset, to a file that is opened with O_APPEND."""
    child = f"setpriv --reuid 65534 --regid 65534 --clear-groups {sys.executable} -c"
    done = prelude.capture("sh", "-c", f'echo password; {child} "import os; print({attack})"; echo end')

    assert done.text.startswith("password\n")
    assert done.text.endswith("end\n")
    assert "FORGED" in done.text or "Error" in done.text


def test_captured_output_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prelude, "_MAX_OUTPUT", 100)
    monkeypatch.chdir(tmp_path)
    assert prelude.query("head", "-c", "5000", "/dev/zero").text == "\0" * 100


def test_captured_output_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each time the child waits until its file has shrunk. In `$(…)` descriptor 1 is a pipe."""
    monkeypatch.setattr(prelude, "_MAX_OUTPUT", 1000)
    monkeypatch.chdir(tmp_path)
    shrunk = "while test $(stat -Lc %s /proc/self/fd/3) -gt 1000; do sleep 0.01; done"
    done = prelude.capture(
        "timeout",
        "60",
        "sh",
        "-c",
        f"exec 3>&1; echo first; for _ in 1 2 3; do head -c 1000000 /dev/zero; {shrunk}; done",
    )
    assert done.status == 0
    assert done.text == "first\n" + "\0" * 994


@as_root
def test_first_output_stays_when_another_account_floods(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a file shrinks, a child may clear O_APPEND and overwrite what root's tool has printed."""
    monkeypatch.setattr(prelude, "_MAX_OUTPUT", 1000)
    done = prelude.capture("sh", "-c", f"echo FIRST; {sys.executable} -c '{FORGES}'")
    assert done.text == "FIRST\n" + "y" * 994
