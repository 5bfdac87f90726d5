"""Station judge: makes the role's own checks, in a process that knows nothing of what converge said.

`python -m pyinfra_solo.stations.judge` reads checks from stdin and writes findings to stdout, both JSON; the
checkout's engine is asked, because a commit may bring a new kind of check.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from pyinfra_solo.checks import Check, Finding, from_json, perform
from pyinfra_solo.errors import JudgedError, SoloError
from pyinfra_solo.system import processes
from pyinfra_solo.system.deadline import Deadline


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """ready is true when every check passed. A role without checks is ready when it has converged."""

    ready: bool
    findings: Sequence[Finding]

    def require_ready(self) -> None:
        """Raises JudgedError, naming every check that failed and why."""
        if self.ready:
            return
        failed = [finding for finding in self.findings if not finding.passed]
        said = "; ".join(f"{finding.check}: {finding.detail}" for finding in failed)
        raise JudgedError(f"Converged, but the role's checks say no: {said}. The gate stays closed.")


def judge_here(checks: Sequence[Check], deadline: Deadline) -> Verdict:
    """All checks at once, each inside its own window and the deadline."""
    if not checks:
        return Verdict(ready=True, findings=())
    with ThreadPoolExecutor(max_workers=min(16, len(checks))) as pool:
        findings = list(pool.map(lambda check: perform(check, deadline.at), checks))
    return Verdict(ready=all(finding.passed for finding in findings), findings=findings)


def judge(
    checks: Sequence[dict[str, object]], python: Path, environment: dict[str, str], deadline: Deadline
) -> Verdict:
    """In a process of its own. checks: as `checks.to_json` writes them. Raises SoloError when that
    process does not answer: what is not judged is not ready."""
    asked = json.dumps({"checks": list(checks), "seconds": deadline.left()})
    process = subprocess.Popen(
        [str(python), "-m", "pyinfra_solo.stations.judge"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd="/", start_new_session=True,
    )  # fmt: skip
    try:
        answer, _ = process.communicate(asked, timeout=deadline.left() + 10)
        findings = [Finding(**finding) for finding in json.loads(answer)["findings"]]
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise JudgedError(
            f"The judge gave no verdict ({type(error).__name__}). The gate stays closed."
        ) from error
    finally:
        processes.end_session(process.pid)
        process.wait()
    well = len(findings) == len(checks) and all(finding.passed for finding in findings)
    return Verdict(ready=well and process.returncode == 0, findings=findings)


def main() -> int:
    asked = json.load(sys.stdin)
    try:
        verdict = judge_here(from_json(asked["checks"]), Deadline.after(float(asked["seconds"])))
    except SoloError as error:
        sys.stderr.write(f"judge: {error}\n")
        return error.exit_code
    json.dump({"findings": [asdict(finding) for finding in verdict.findings]}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
