"""Open the gate by hand: only one that an operator closed in this boot, and after new checks."""

import time
from dataclasses import replace
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.errors import JudgedError
from pyinfra_solo.gate import kept_statement, open_gate
from pyinfra_solo.report.records import StationName
from pyinfra_solo.run.run import Run
from pyinfra_solo.stations.converge import engine_here, engine_of
from pyinfra_solo.stations.judge import judge


def reopen(run: Run) -> None:
    """Judge the machine by its kept statement, and open its gate.

    Raises JudgedError when there is no such statement, or a check fails.
    """
    statement = kept_statement()
    if statement is None:
        raise JudgedError(
            "Not reopened: no successful run since this boot, or something changed since. Run `pyinfra-solo run`."
        )
    run.record(role=statement.role, stage=statement.stage, sha=statement.sha)
    with run.station(StationName.JUDGE):
        root, python = paths.STATE / "checkouts" / statement.sha, Path(statement.python)
        engine = engine_of(root, python) if root.is_dir() else engine_here(python)
        verdict = judge([dict(check) for check in statement.checks], engine, run.deadline)
        run.record(findings=list(verdict.findings))
        verdict.require_ready()
    with run.station(StationName.OPEN_GATE):
        open_gate(replace(statement, run=run.id, at=time.time()))
