"""Read the values of roles: role defaults < group_data/all.py < group_data/<stage>.py < flags.

A key belongs to the roles whose dataclass has that field. A key of no role, and a value of another
type than its field's, is an error that names its file.
"""

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from pyinfra_solo.errors import DataError
from pyinfra_solo.ops_repo.names import stages, unknown
from pyinfra_solo.role import Role
from pyinfra_solo.system.redaction import redacted
from pyinfra_solo.system.text import explained, in_words

FLAG = "the flag --data"


@dataclass(frozen=True)
class Value:
    """A value, and the layer that it comes from: a file, or a flag."""

    value: Any
    source: str


def layered(root: Path, stage: str, flags: Mapping[str, str], roles: Mapping[str, Role]) -> dict[str, Value]:
    """Read all layers; the strongest one's value counts. Each is checked against its field's type.

    flags: key to text from a command line, which is converted to the field's type.
    Raises RoleError for an unknown stage, DataError for a wrong key or value.
    """
    if stage not in stages(root):
        raise unknown("stage", stage, stages(root))
    hints = {key: (kind, role.name) for role in roles.values() for key, kind in _hints(role).items()}
    values: dict[str, Value] = {}
    for name in ("all", stage):
        path = root / "inventories" / "group_data" / f"{name}.py"
        source = str(path.relative_to(root))
        for key, value in _read(path, source, root).items():
            values[key] = Value(_typed(key, value, source, hints, strict=True), source)
    for key, text in flags.items():
        values[key] = Value(_typed(key, text, FLAG, hints, strict=False), FLAG)
    return values


def bind(role: Role, values: Mapping[str, Value]) -> Any:
    """Make the role's data from its values. Raises DataError when one without a default is not set."""
    missing = [
        field.name
        for field in fields(role.data)
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise DataError(
            f"The role {role.name!r} needs a value for {missing[0]!r}. Set it in inventories/group_data/all.py or a stage's."
        )
    try:
        return role.data(**given(role, values))
    except Exception as error:  # noqa: BLE001 - of its own __post_init__
        hidden = [
            text
            for key, kind in _hints(role).items()
            if key in values and _is_secret(kind)
            for text in _texts(values[key].value)
        ]
        reason = redacted(f"{type(error).__name__}: {in_words(error)}", hidden)
        raise DataError(
            f"The data of the role {role.name!r} refuses its values: {reason}. Correct one and commit."
        ) from None


def given(role: Role, values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the values of the role that are set, without its defaults."""
    known = _hints(role)
    return {key: value.value for key, value in values.items() if key in known}


def _hints(role: Role) -> dict[str, Any]:
    return get_type_hints(role.data, include_extras=True)


def _read(path: Path, source: str, root: Path) -> dict[str, Any]:
    """Run a file of group data, and return its public variables, as pyinfra does. Raises DataError."""
    if not path.exists():
        return {}
    try:
        found = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{source} cannot be read: {explained(error, root)}. Correct it and commit."
        ) from error
    modules = type(msgspec)
    return {
        key: value
        for key, value in found.items()
        if not key.startswith("_") and not isinstance(value, modules) and not callable(value)
    }


def _typed(key: str, value: Any, source: str, hints: Mapping[str, tuple[Any, str]], *, strict: bool) -> Any:
    if key not in hints:
        near = get_close_matches(key, hints, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else f" Values here: {', '.join(sorted(hints))}."
        raise DataError(f"{source}: no role has a value {key!r}.{guess}")
    kind, role = hints[key]
    try:
        return msgspec.convert(value, kind, strict=True) if strict else _parsed(value, kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{source}: {key!r} of the role {role!r}: {_without_value(error)}.") from None


def _parsed(text: str, kind: Any) -> Any:
    """Convert a flag's text as it is, or from JSON where only that fits: a list, a table."""
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        if not text.startswith(("[", "{")):
            raise
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise msgspec.ValidationError(f"it is not JSON ({error})") from None
    return msgspec.convert(value, kind, strict=True)


def _without_value(error: msgspec.ValidationError) -> str:
    """Return the first line: the type error alone. msgspec quotes no values of plain types."""
    return str(error).splitlines()[0].rstrip(".")


def secrets(role: Role, bound: Any) -> list[str]:
    """List the role's values of the type Secret, as text; of a list or a table, each value."""
    return [
        text for key, kind in _hints(role).items() if _is_secret(kind) for text in _texts(getattr(bound, key))
    ]


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [text for one in value for text in _texts(one)]
    return [str(value)] if value else []


def _is_secret(kind: Any) -> bool:
    if any(
        isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("secret") for meta in get_args(kind)[1:]
    ):
        return True
    return any(_is_secret(part) for part in get_args(kind))


def provenance(role: Role, values: Mapping[str, Value]) -> dict[str, str]:
    """Name the layer that each of the role's values comes from."""
    return {key: values[key].source if key in values else "the role's default" for key in _hints(role)}


def check_declared(roles: Sequence[Role]) -> None:
    """Raise DataError for a default of a wrong type, and for a name that two roles give two types."""
    seen: dict[str, tuple[Any, str]] = {}
    for role in roles:
        hints = {key: (kind, role.name) for key, kind in _hints(role).items()}
        for field in fields(role.data):
            kind, owner = seen.setdefault(field.name, hints[field.name])
            if kind != hints[field.name][0]:
                raise DataError(
                    f"The roles {owner!r} and {role.name!r} both have a value {field.name!r}, of different types. Rename one."
                )
            if field.default is not MISSING:
                _typed(field.name, field.default, f"roles/{role.name}", hints, strict=True)
