"""Remember the last commit that was judged ready here, and its ref: a fallback when no remote answers."""

from pyinfra_solo import paths
from pyinfra_solo.system import durable
from pyinfra_solo.system.text import COMMIT


def remember_good(sha: str, ref: str) -> None:
    """Write the commit and the ref that it was wanted by to `<state>/good`. Raises OSError."""
    durable.write(paths.STATE / "good", f"{sha} {ref}\n")


def last_good(ref: str) -> str | None:
    """Return the last good commit; None when there is none, or it was of another ref."""
    try:
        sha, _, its_ref = (paths.STATE / "good").read_text().strip().partition(" ")
    except (OSError, ValueError):
        return None
    return sha if COMMIT.fullmatch(sha) and its_ref == ref else None
