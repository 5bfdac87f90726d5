"""Every role can be planned in every stage, on a machine with nothing on it.

An ops repo begins with this file: it finds the roles and the stages of the repository it stands in.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROLES = sorted(path.parent.name for path in ROOT.glob("roles/*/__init__.py"))
STAGES = sorted(path.stem for path in ROOT.glob("inventories/*.py") if path.stem != "__init__")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("role", ROLES)
def test_a_new_machine_of_every_role_can_be_planned_in_every_stage(role: str, stage: str) -> None:
    engine = [sys.executable, "-m", "pyinfra_solo"]
    done = subprocess.run(
        [*engine, "plan", "--dir", str(ROOT), "--role", role, "--stage", stage, "--blank"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "bootstrap")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # 2: something would be done (0: nothing). Anything else is an error, and says what to correct.
    assert done.returncode in (0, 2), done.stderr
