"""Station judge: perform the role's own checks, in a process that knows nothing of the converge.

The checkout's engine performs them (`python -m pyinfra_solo.checks`), because a commit may bring a new
kind of check.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pyinfra_solo import fence, protocol
from pyinfra_solo.checks import Finding
from pyinfra_solo.errors import JudgedError
from pyinfra_solo.protocol import ChecksRequest
from pyinfra_solo.stations.converge import Engine
from pyinfra_solo.stations.page import other_page
from pyinfra_solo.system import processes
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.redaction import redacted


@dataclass(frozen=True)
class Verdict:
    """The finding of each check. A role without checks is ready when it has converged."""

    findings: Sequence[Finding]

    @property
    def ready(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def require_ready(self, page: str = "") -> None:
        """Raise JudgedError, naming every check that failed and why. page: what `other_page` has found."""
        failed = [finding for finding in self.findings if not finding.passed]
        reasons = "; ".join(f"{finding.check}: {finding.detail}" for finding in failed)
        problems = [f"Converged, but the role's checks failed: {reasons}."] if failed else []
        if problems or page:
            raise JudgedError(" ".join([*problems, *filter(None, [page]), "The gate stays closed."]))


def judge(checks: Sequence[dict[str, Any]], engine: Engine, deadline: Deadline) -> Verdict:
    """Perform the checks in a process of their own.

    checks: as `checks.to_json` writes them. Raises JudgedError when that process gives no answer for
    each of them: a machine that is not judged is not ready.
    """
    request = ChecksRequest(protocol=protocol.VERSION, checks=list(checks), seconds=deadline.left())
    try:
        done = processes.run(
            [str(engine.python), "-m", protocol.CHECKS], stdin=msgspec.json.encode(request),
            environment=engine.environment, timeout=deadline.left() + 10,
        )  # fmt: skip
    except TimeoutError as error:
        raise JudgedError("The health checks did not finish in time. The gate stays closed.") from error
    try:
        findings = msgspec.convert(protocol.decode_answer(done.stdout).findings, list[Finding])
    except msgspec.MsgspecError:
        findings = []
    asked = [redacted(f"{check['kind']} {check['target']}", check.get("secrets", ())) for check in checks]
    if [finding.check for finding in findings] != asked or done.status:
        secrets = [secret for check in checks for secret in check.get("secrets", ())]
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise JudgedError(
            f"The health checks ended with exit status {done.status} and no full answer ({redacted(last, secrets)}). "
            "The gate stays closed."
        )
    return Verdict(findings)


def start_waiting_web_servers(checks: Sequence[dict[str, Any]], say: Callable[[str], None]) -> None:
    """Start the web servers that the fence has kept down, now that the machine is converged.

    say: is given a line for each. Raises JudgedError, and stops them, when they answer for the gate.
    """
    fence.release()
    started = fence.start_waiting(say)
    if started:
        try:
            require_no_other_page(checks)
        except JudgedError:
            fence.stop(started, say)
            raise


def require_no_other_page(checks: Sequence[dict[str, Any]]) -> None:
    """Raise JudgedError when something else than the gate answers the balancer here."""
    if problem := other_page(checks):
        raise JudgedError(f"{problem} The gate stays closed.")
