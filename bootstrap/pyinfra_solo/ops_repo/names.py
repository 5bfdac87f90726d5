"""Read the names of an ops repo's roles and stages, without running any of its code."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from pyinfra_solo.errors import RoleError
from pyinfra_solo.system.text import NAME


def roles(root: Path) -> list[str]:
    """List the roles of the ops repo at `root`: one package below roles/ each."""
    return sorted(path.parent.name for path in root.glob("roles/*/__init__.py"))


def stages(root: Path) -> list[str]:
    """List the stages of the ops repo at `root`: one inventory file each."""
    return sorted(path.stem for path in root.glob("inventories/*.py") if path.stem != "__init__")


def checked_name(kind: str, name: str, source: str) -> str:
    """Return `name`, a role's or a stage's; raise RoleError unless it has a name's form.

    A tag may hold anything, and names become paths. source: where it comes from, for the message.
    """
    if NAME.fullmatch(name):
        return name
    shown = name if len(name) <= 40 else name[:40] + "…"
    raise RoleError(
        f"The {kind} {shown!a} from {source} is not a name: use a-z, then a-z, 0-9, _ or -, 63 at most."
    )


def unknown(kind: str, name: str, known: Sequence[str]) -> RoleError:
    """Make the error for a role or stage that does not exist: it lists those that do, and the nearest."""
    near = get_close_matches(name, known, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return RoleError(
        f"There is no {kind} {name!r}.{guess} {kind.capitalize()}s here: {', '.join(known) or 'none'}."
    )
