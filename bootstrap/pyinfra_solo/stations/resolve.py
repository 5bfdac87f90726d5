"""Station resolve: exactly one role, and one stage, for this machine.

A flag or the settings win; else the tag `Role`; else the security groups through the map that the
repository declares in roles/roles.toml. None, several, or an unknown one is an error that names
every candidate and where it came from.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pyinfra_solo.errors import DataError, RoleError
from pyinfra_solo.ops_repo.values import stages
from pyinfra_solo.role import checked_name, names, unknown
from pyinfra_solo.stations.identify import Instance

MAP = "roles/roles.toml"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A role or a stage that something names, and what names it."""

    name: str
    source: str

    def __str__(self) -> str:
        return f"{self.name!r} from {self.source}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The role and the stage, each with the source that won."""

    role: Candidate
    stage: Candidate


def stage_of(flag: str | None, setting: str | None, instance: Instance) -> Candidate:
    """The stage: a flag, else the tag `Stage`, else the settings. Raises RoleError.

    Known before the fetch, because a stage may have a ref of its own; that the repository has it is
    checked by `resolve`.
    """
    tag = instance.tags.get("Stage")
    for name, source in (
        (flag, "the flag --stage"),
        (tag, "the tag Stage"),
        (setting, "machine.stage in the settings"),
    ):
        if name is not None:
            return Candidate(name=checked_name("stage", name, source), source=source)
    raise RoleError("This machine has no stage. Give it a tag Stage, set machine.stage in the settings, or use --stage.")  # fmt: skip


def resolve(
    root: Path, flag: str | None, setting: str | None, stage: Candidate, instance: Instance
) -> Choice:
    """root: the checkout. Raises RoleError, or DataError for a map that cannot be read."""
    if stage.name not in stages(root):
        raise _sourced(unknown("stage", stage.name, stages(root)), (stage,))
    candidates = _candidates(root, flag, setting, instance)
    if not candidates:
        groups = ", ".join(instance.security_groups) or "none"
        raise RoleError(
            f"This machine has no role: no flag, no setting, no tag Role, and {MAP} maps none of its security groups "
            f"({groups}). Roles here: {', '.join(names(root))}."
        )
    distinct = {candidate.name for candidate in candidates}
    if len(distinct) > 1:
        said = "; ".join(str(candidate) for candidate in candidates)
        raise RoleError(f"This machine has several roles: {said}. Give it a tag Role that names the one.")
    role = candidates[0]
    checked_name("role", role.name, role.source)
    if role.name not in names(root):
        raise _sourced(unknown("role", role.name, names(root)), candidates)
    return Choice(role=role, stage=stage)


def _candidates(root: Path, flag: str | None, setting: str | None, instance: Instance) -> Sequence[Candidate]:
    tag = instance.tags.get("Role")
    for name, source in (
        (flag, "the flag --role"),
        (setting, "machine.role in the settings"),
        (tag, "the tag Role"),
    ):
        if name is not None:
            return [Candidate(name=name, source=source)]
    return [
        Candidate(name=role, source=f"the security group {group!r} ({pattern!r} in {MAP})")
        for group in instance.security_groups
        for pattern, role in _map(root).items()
        if fnmatchcase(group, pattern)
    ]


def _map(root: Path) -> dict[str, str]:
    """Pattern of a security group's name to role."""
    path = root / MAP
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{MAP} cannot be read: {error}. Correct it and commit.") from error
    groups = found.pop("security_groups", {})
    if found or not isinstance(groups, dict) or not all(isinstance(role, str) for role in groups.values()):
        raise DataError(f"{MAP} holds one table, [security_groups], of patterns and roles.")
    return groups


def _sourced(error: RoleError, candidates: Sequence[Candidate]) -> RoleError:
    return RoleError(f"{error} (It is {'; '.join(str(candidate) for candidate in candidates)}.)")
