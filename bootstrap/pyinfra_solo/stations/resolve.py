"""Station resolve: choose exactly one role and one stage for this machine.

For the role a flag wins, then the settings, then the tag `Role`, then the security groups, which the ops
repo maps to roles in roles/roles.toml. For the stage a flag wins, then, on EC2, the tag `Stage`, then the
settings; off EC2 the settings outrank the tag, as anybody may have answered there. No role, several, or an unknown one is an error that names every
candidate with its source. No code of the ops repo runs here.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pyinfra_solo.errors import DataError, RoleError
from pyinfra_solo.ops_repo.names import checked_name, roles, stages, unknown
from pyinfra_solo.stations.identify import Instance

MAP = "roles/roles.toml"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The name of a role or a stage, and its source, for messages."""

    name: str
    source: str

    def __str__(self) -> str:
        return f"{self.name!r} from {self.source}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The role and the stage of this machine."""

    role: Candidate
    stage: Candidate


def stage_of(flag: str | None, setting: str | None, instance: Instance) -> Candidate:
    """Choose the stage by a flag, the tag `Stage` and the settings. Raises RoleError.

    It is needed before the fetch, as a stage may have a ref of its own. `resolve` checks afterwards
    that the ops repo has it.
    """
    tag = (instance.tags.get("Stage"), "the tag Stage")
    settings = (setting, "machine.stage in the settings")
    stage = _first((flag, "the flag --stage"), *((tag, settings) if instance.on_ec2 else (settings, tag)))
    if stage is None:
        raise RoleError(
            "This machine has no stage. Set a tag Stage, set machine.stage in the settings, or use --stage."
        )
    checked_name("stage", stage.name, stage.source)
    return stage


def resolve(
    root: Path, flag: str | None, setting: str | None, stage: Candidate, instance: Instance
) -> Choice:
    """Choose the role, and check that the ops repo has both role and stage.

    root: the checkout. Raises RoleError, or DataError for an invalid roles/roles.toml.
    """
    if stage.name not in stages(root):
        raise _sourced(unknown("stage", stage.name, stages(root)), (stage,))
    candidates = _candidates(root, flag, setting, instance)
    if not candidates:
        groups = ", ".join(instance.security_groups) or "none"
        raise RoleError(
            f"This machine has no role: no flag, no setting, no tag Role, and {MAP} maps none of its security groups "
            f"({groups}). Roles here: {', '.join(roles(root)) or 'none'}. Set a tag Role, set machine.role in the settings, or use --role."
        )
    if len({candidate.name for candidate in candidates}) > 1:
        found = "; ".join(map(str, candidates))
        raise RoleError(f"This machine has several roles: {found}. Set a tag Role with the right one.")
    role = candidates[0]
    checked_name("role", role.name, role.source)
    if role.name not in roles(root):
        raise _sourced(unknown("role", role.name, roles(root)), candidates)
    return Choice(role=role, stage=stage)


def _first(*given: tuple[str | None, str]) -> Candidate | None:
    return next((Candidate(name=name, source=source) for name, source in given if name is not None), None)


def _candidates(root: Path, flag: str | None, setting: str | None, instance: Instance) -> Sequence[Candidate]:
    tag = instance.tags.get("Role")
    if given := _first(
        (flag, "the flag --role"), (setting, "machine.role in the settings"), (tag, "the tag Role")
    ):
        return [given]
    return [
        Candidate(name=role, source=f"the security group {group!r} ({pattern!r} in {MAP})")
        for group in instance.security_groups
        for pattern, role in _map(root).items()
        if fnmatchcase(group, pattern)
    ]


def _map(root: Path) -> dict[str, str]:
    """Read roles/roles.toml: pattern of a security group's name to role. Raises DataError."""
    path = root / MAP
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{MAP} cannot be read: {error}. Correct it and commit.") from error
    groups = found.pop("security_groups", {})
    if found or not isinstance(groups, dict) or not all(isinstance(role, str) for role in groups.values()):
        raise DataError(f'{MAP} is invalid. It holds one table, [security_groups]: "pattern" = "role".')
    return groups


def _sourced(error: RoleError, candidates: Sequence[Candidate]) -> RoleError:
    return RoleError(f"{error} (It is {'; '.join(map(str, candidates))}.)")
