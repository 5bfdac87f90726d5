"""Why a run has failed, as everyone is told who may ask: status, the journal and the report."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.asking import gate_is_open
from tests.lab.fleet import solo, status
from tests.lab.host import LabError, wait_for
from tests.lab.machine import Machine

SOON = 30.0
"""Seconds in which a run that was begun has failed: a bound, not a measure."""


def last_run(machine: Machine) -> str:
    """The id of the run that is the last one, '' before the first."""
    last = status(machine)["last_run"]
    return str(last["run"]) if last else ""


def why(machine: Machine, *, not_by: str = "", heard: int = 0) -> dict[str, Any]:
    """The report of a boot run that has failed and closed the gate, told alike by all who are asked.

    not_by: the id of a run that does not count. heard: how much of the journal was there before.
    """
    found = _failed(machine, not_by)
    last: dict[str, Any] = found["last_run"]
    reason, code = last["error"], last["exit_code"]
    assert not gate_is_open(machine)
    assert found["ready"] is False
    wait_for("the page of status", lambda: _on_the_page(machine, last), SOON)
    wait_for("the journal", lambda: _in_the_journal(machine, reason, code, heard), SOON)
    written: dict[str, Any] = json.loads(machine.read(f"/var/lib/pyinfra-solo/reports/{last['run']}.json"))
    assert (written["error"], written["exit_code"]) == (reason, code)
    assert written["gate"] == "closed"
    return written


def _failed(machine: Machine, not_by: str) -> dict[str, Any]:
    """`status --json` between the end of a failed run and the next try."""
    found: dict[str, Any] = {}

    def told() -> bool:
        found.update(status(machine))
        last = found["last_run"]
        if not last or last["run"] == not_by or last["outcome"] != "failed":
            return False
        return bool(found["gate"]["reason"] == last["error"])

    try:
        wait_for(f"{machine.name} to say why", told, SOON)
    except LabError as error:
        raise LabError(f"{error}\n{found}\n{machine.journal('pyinfra-solo')[-6000:]}") from error
    return found


def _on_the_page(machine: Machine, last: dict[str, Any]) -> bool:
    code, page, _ = solo(machine, "status")
    wanted = (
        f": {last['error']}",
        f": failed in {last['seconds']:.1f} s, exit status {last['exit_code']}",
        f"why       {last['station']}: {last['error']}",
    )
    return code == 1 and all(words in page for words in wanted)


def _in_the_journal(machine: Machine, reason: str, code: int, heard: int) -> bool:
    """The reason by the run, and the exit status by systemd."""
    said = machine.journal("pyinfra-solo", boot=True)[heard:]
    return f"pyinfra-solo: {reason}" in said and f"code=exited, status={code}/" in said


def tries_no_more(machine: Machine) -> bool:
    """Whether the unit has failed for good: one that will be tried again is `activating`."""
    wait_for("the unit's end", lambda: _state(machine) == "failed", SOON)
    shown = machine.run("systemctl show -p NRestarts --value pyinfra-solo", check=True)
    return shown.stdout.strip() == "0"


def _state(machine: Machine) -> str:
    return machine.run("systemctl is-failed pyinfra-solo").stdout.strip()
