"""Remember the last commit that was judged ready on this machine: a fallback when no remote answers."""

from pyinfra_solo import paths
from pyinfra_solo.system import durable
from pyinfra_solo.system.text import COMMIT


def remember_good(sha: str) -> None:
    """Write the commit to `<state>/good`. Raises OSError."""
    durable.write(paths.STATE / "good", sha + "\n")


def last_good() -> str | None:
    """Return the commit of `<state>/good`; None when there is none that can be read."""
    try:
        sha = (paths.STATE / "good").read_text().strip()
    except OSError:
        return None
    return sha if COMMIT.fullmatch(sha) else None
