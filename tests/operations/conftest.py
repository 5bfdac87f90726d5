"""An operation's program, called in the process and run as a command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from pyinfra_solo.operations.script import Program

Ask = Callable[..., Any]


@pytest.fixture(params=["process", "command"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """`ask(program, verb, **arguments)` gives the answer of a verb."""

    def answer(program: Program, verb: str, **arguments: Any) -> Any:
        if request.param == "process":
            return program.call(verb, arguments)
        done = run(program, verb, **arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return answer


def run(program: Program, verb: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as a shell runs its command."""
    return subprocess.run(
        ["sh", "-c", program.command(verb, arguments).get_raw_value()],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
