"""Open the gate by hand: only what an operator closed, in this very boot, and judged anew."""

import time
from dataclasses import replace
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.errors import JudgedError
from pyinfra_solo.gate import kept_statement, open_gate
from pyinfra_solo.run.run import Run
from pyinfra_solo.stations.converge import engine_here, engine_of
from pyinfra_solo.stations.judge import judge


def reopen(run: Run) -> None:
    """Raises JudgedError when there is nothing to vouch for, or a check says no."""
    statement = kept_statement()
    if statement is None:
        raise JudgedError(
            "No run of this boot vouches for this machine as it is now. Use `pyinfra-solo run`."
        )
    run.report.role, run.report.stage, run.report.sha = statement.role, statement.stage, statement.sha
    with run.station("judge"):
        root, python = paths.STATE / "checkouts" / statement.sha, Path(statement.python)
        engine = engine_of(root, python) if root.is_dir() else engine_here(python)
        verdict = judge(
            [dict(check) for check in statement.checks], engine.python, dict(engine.environment), run.deadline
        )
        run.report.findings = list(verdict.findings)
        verdict.require_ready()
    with run.station("open gate"):
        open_gate(replace(statement, run=run.id, at=time.time()))
