"""Station judge: performs the role's own checks, in a process that knows nothing of the converge.

The checkout's engine performs them (`python -m pyinfra_solo.checks`), because a commit may bring a new
kind of check.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pyinfra_solo import protocol
from pyinfra_solo.checks import Check, Finding, perform_all
from pyinfra_solo.errors import JudgedError
from pyinfra_solo.protocol import ChecksAnswer, ChecksRequest
from pyinfra_solo.stations.converge import Engine
from pyinfra_solo.system import processes
from pyinfra_solo.system.deadline import Deadline


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """ready: every check passed. A role without checks is ready when it has converged."""

    ready: bool
    findings: Sequence[Finding]

    def require_ready(self) -> None:
        """Raise JudgedError, naming every check that failed and why."""
        if self.ready:
            return
        failed = [finding for finding in self.findings if not finding.passed]
        reasons = "; ".join(f"{finding.check}: {finding.detail}" for finding in failed)
        raise JudgedError(f"Converged, but the role's checks failed: {reasons}. The gate stays closed.")


def judge_here(checks: Sequence[Check], deadline: Deadline) -> Verdict:
    """Perform the checks in this process, all at once."""
    findings = perform_all(checks, deadline)
    return Verdict(ready=all(finding.passed for finding in findings), findings=findings)


def judge(checks: Sequence[dict[str, Any]], engine: Engine, deadline: Deadline) -> Verdict:
    """Perform the checks in a process of their own.

    checks: as `checks.to_json` writes them. Raises JudgedError when that process gives no answer: a
    machine that is not judged is not ready.
    """
    request = ChecksRequest(protocol=protocol.VERSION, checks=list(checks), seconds=deadline.left())
    try:
        done = processes.run(
            [str(engine.python), "-m", protocol.CHECKS],
            stdin=msgspec.json.encode(request),
            environment=dict(engine.environment),
            timeout=deadline.left() + 10,
        )
    except TimeoutError as error:
        raise JudgedError("The health checks did not finish in time. The gate stays closed.") from error
    try:
        answer = msgspec.json.decode(done.stdout, type=ChecksAnswer)
        findings = [Finding(**finding) for finding in answer.findings]
    except (msgspec.MsgspecError, TypeError) as error:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise JudgedError(
            f"The health checks ended with exit status {done.status} and no answer: {last}. The gate stays closed."
        ) from error
    protocol.require_version(image=protocol.VERSION, checkout=answer.protocol)
    passed = len(findings) == len(checks) and all(finding.passed for finding in findings)
    return Verdict(ready=passed and done.status == 0, findings=findings)
