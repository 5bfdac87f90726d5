"""Read why a run has failed: from the status, the journal and the report."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.asking import gate_is_open
from tests.lab.fleet import solo, status
from tests.lab.machine import BootedMachine
from tests.support.programs import LabError, wait_for

SOON = 30.0
"""Seconds in which a run that was begun has failed: a bound, not a measure."""


def last_run(machine: BootedMachine) -> str:
    """Return the id of the last run, '' before the first."""
    last = status(machine)["last_run"]
    return str(last["run"]) if last else ""


def why(machine: BootedMachine, *, not_by: str = "", skip: int = 0) -> dict[str, Any]:
    """Return the report of a boot run that failed and closed the gate; check that status and journal agree.

    not_by: the id of a run that does not count. skip: length of the journal before the run.
    """
    found = _failed(machine, not_by)
    last: dict[str, Any] = found["last_run"]
    reason, code = last["error"], last["exit_code"]
    assert not gate_is_open(machine)
    assert found["ready"] is False
    wait_for("the page of status", lambda: _on_the_page(machine, last), SOON)
    wait_for("the journal", lambda: _in_the_journal(machine, reason, code, skip), SOON)
    written: dict[str, Any] = json.loads(machine.read(f"/var/lib/pyinfra-solo/reports/{last['run']}.json"))
    assert (written["error"], written["exit_code"]) == (reason, code)
    assert written["gate"] == "closed"
    return written


def _failed(machine: BootedMachine, not_by: str) -> dict[str, Any]:
    """Return `status --json` between the end of a failed run and the next try."""
    found: dict[str, Any] = {}

    def agrees() -> bool:
        found.update(status(machine))
        last = found["last_run"]
        if not last or last["run"] == not_by or last["outcome"] != "failed":
            return False
        return bool(found["gate"]["reason"] == last["error"])

    try:
        wait_for(f"{machine.name} to say why", agrees, SOON)
    except LabError as error:
        raise LabError(f"{error}\n{found}\n{machine.journal('pyinfra-solo')[-6000:]}") from error
    return found


def _on_the_page(machine: BootedMachine, last: dict[str, Any]) -> bool:
    code, page, _ = solo(machine, "status")
    wanted = (
        f": {last['error']}",
        f": failed in {last['seconds']:.1f} s, exit status {last['exit_code']}",
        f"why       {last['station']}: {last['error']}",
    )
    return code == 1 and all(words in page for words in wanted)


def _in_the_journal(machine: BootedMachine, reason: str, code: int, skip: int) -> bool:
    """Tell whether the run has logged the reason, and systemd the exit status."""
    journal = machine.journal("pyinfra-solo", boot=True)[skip:]
    return f"pyinfra-solo: {reason}" in journal and f"code=exited, status={code}/" in journal


def tries_no_more(machine: BootedMachine) -> bool:
    """Tell whether the unit has failed for good: one that will be retried is `activating`."""
    wait_for("the unit's end", lambda: _state(machine) == "failed", SOON)
    shown = machine.run("systemctl show -p NRestarts --value pyinfra-solo", check=True)
    return shown.stdout.strip() == "0"


def _state(machine: BootedMachine) -> str:
    return machine.run("systemctl is-failed pyinfra-solo").stdout.strip()
