"""Where things are: at the places that the units name, or all of it below one folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import ENGINE

SHOW = "from pyinfra_solo import paths as p; print(p.CONFIG, p.BAKED, p.STATE, p.RUN, p.GATE, p.APPS)"
PLACES = [
    "/etc/pyinfra-solo/config.toml",
    "/opt/pyinfra-solo",
    "/var/lib/pyinfra-solo",
    "/run/pyinfra-solo",
    "/run/pyinfra-solo/gate",
    "/srv",
]


def places(environment: dict[str, str], cwd: Path) -> list[str]:
    environment = {"PYTHONPATH": str(ENGINE), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment, cwd=cwd, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("environment", [{}, {"PYINFRA_SOLO_ROOT": ""}, {"PYINFRA_SOLO_ROOT": "/"}], ids=str)
def test_a_machine_has_everything_at_its_place(environment: dict[str, str], tmp_path: Path) -> None:
    """An empty variable, as a unit's `Environment=PYINFRA_SOLO_ROOT=` makes it, is none: not the
    working directory."""
    assert places(environment, tmp_path) == PLACES


def test_a_root_takes_all_of_it_along(tmp_path: Path) -> None:
    root = tmp_path / "root"

    assert places({"PYINFRA_SOLO_ROOT": str(root)}, tmp_path) == [f"{root}{place}" for place in PLACES]
