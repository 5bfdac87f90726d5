"""Modules that commands import: each costs time on every machine, at every boot or poll."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import REPOSITORY
from tests.support.ops_repo import ops, write

POLLED = (
    ["--help"],
    ["status"],
    ["gate", "status"],
    ["gate", "close", "--reason", "a test"],
    ["report", "--slow"],
    ["install", "--init", "upstart"],
)
RECORD = """
import atexit, json, os, sys
atexit.register(lambda: json.dump(sorted(sys.modules), open(os.environ["MODULES"], "w")))
"""


def modules_of(program: str, folder: Path, *, stdin: str = "", words: tuple[str, ...] = ()) -> set[str]:
    """Return the names of the modules that a program has imported when it ends."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY / "bootstrap"),
        "PYTHONSAFEPATH": "1",
        "PYINFRA_SOLO_ROOT": str(folder),
        "MODULES": str(folder / "modules"),
    }
    subprocess.run(
        [sys.executable, "-c", RECORD + program, *words],
        env=environment, cwd=folder, input=stdin, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return set(json.loads((folder / "modules").read_text()))


@pytest.mark.parametrize("words", POLLED, ids=" ".join)
def test_polled_command_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    program = "from pyinfra_solo.cli.main import main; main()"
    found = modules_of(program, tmp_path, words=tuple(words))
    assert "pyinfra_solo.cli.main" in found
    heavy = {"pyinfra", "boto3", "botocore", "git", "gevent", "paramiko", "jinja2", "pyinfra_solo.boot"}
    assert not found & heavy


def test_gate_status_imports_no_third_party_but_click(tmp_path: Path) -> None:
    """Scripts poll it every second or so."""
    program = "from pyinfra_solo.cli.main import main; main()"
    found = modules_of(program, tmp_path, words=("gate", "status"))
    assert "click" in found
    assert "msgspec" not in found


def test_converge_imports_neither_ssh_nor_aws_nor_git(tmp_path: Path) -> None:
    request = {
        "protocol": 1, "root": str(write(tmp_path / "ops", ops("pass", tmp_path))), "role": "site", "stage": "staging",
        "mode": "converge", "operation_timeout": 60, "drain": "on-change", "options": {},
    }  # fmt: skip
    program = "from pyinfra_solo.executor.__main__ import main; assert main() == 0"
    found = modules_of(program, tmp_path, stdin=json.dumps(request))
    assert {"pyinfra", "pyinfra_solo.executor.session"} <= found
    assert not found & {"paramiko", "invoke", "cryptography", "gevent", "boto3", "git", "typeguard"}
