"""Fixtures of operations: a program called in both ways, and an app with releases."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo import paths
from pyinfra_solo.operations.script import Program
from tests.support.releases import Shop, Spies
from tests.support.repository import Repository
from tests.support.services import Script, Start, service
from tests.support.wheels import lock, uv, wheel

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


@pytest.fixture
def shop(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(paths, "RUN", open_folder / "run")
    monkeypatch.setenv("PATH", str(uv().parent), prepend=":")
    made = Shop(Repository(open_folder / "shop.git").make(), open_folder / "srv")
    made.root.mkdir()
    made.push("one")
    return made


@pytest.fixture
def with_wheels(shop: Shop, tmp_path: Path) -> Shop:
    """Its releases have an environment with the package alpha."""
    sha = wheel(shop.root / "wheels", "alpha")
    shop.push("one", **{"requirements.lock": lock(tmp_path / "lock", ("alpha", "1.0", sha)).read_text()})
    shop.options["requirements"] = "requirements.lock"
    return shop


@pytest.fixture
def spies() -> Iterator[Spies]:
    """What code of packages sends."""
    with Spies() as made:
        yield made


@pytest.fixture
def declare(tmp_path: Path) -> Iterator[Start]:
    """`declare(**options)` gives the LSB script of a service, which is stopped after the test."""
    scripts: list[Script] = []

    def make(**options: Any) -> Script:
        script = Script(tmp_path, service(**{"stop_timeout": 5, "restart_delay": 0, **options}))
        scripts.append(script)
        return script

    yield make
    for script in scripts:
        script("stop")
