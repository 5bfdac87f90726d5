"""The last commit that was judged ready on this machine's disk: a rung for when no remote answers."""

from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.system import durable
from pyinfra_solo.system.text import COMMIT


def remember_good(sha: str, state: Path | None = None) -> None:
    durable.write((state or paths.STATE) / "good", sha + "\n")


def last_good(state: Path | None = None) -> str | None:
    try:
        sha = ((state or paths.STATE) / "good").read_text().strip()
    except OSError:
        return None
    return sha if COMMIT.fullmatch(sha) else None
