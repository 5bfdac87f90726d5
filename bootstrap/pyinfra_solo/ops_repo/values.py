"""The values that roles work with: role defaults < group_data/all.py < the stage's < flags.

A key belongs to the role whose dataclass has that field. A key that belongs to none, or a value of
another type than the field's, is an error that names the file it stands in.
"""

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from pyinfra_solo.errors import DataError
from pyinfra_solo.role import Role, unknown

FLAG = "the flag --data"
Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""The type of a value that must not be shown: it is taken out of events, output and diffs."""


@dataclass(frozen=True)
class Value:
    """One value and the layer it came from, as an operator would name it."""

    value: Any
    source: str


def stages(root: Path) -> list[str]:
    """The stages of the repository at `root`: one inventory file each."""
    return sorted(path.stem for path in root.glob("inventories/*.py") if path.stem != "__init__")


def layered(root: Path, stage: str, flags: Mapping[str, str], roles: Mapping[str, Role]) -> dict[str, Value]:
    """Every value that is set somewhere, the strongest layer's, checked against its role's type.

    flags: key to text, as typed on a command line; text is read as the field's type.
    Raises RoleError for an unknown stage, DataError for a wrong key or value.
    """
    if stage not in stages(root):
        raise unknown("stage", stage, stages(root))
    hints = {key: (kind, role.name) for role in roles.values() for key, kind in _hints(role).items()}
    values: dict[str, Value] = {}
    for name in ("all", stage):
        path = root / "inventories" / "group_data" / f"{name}.py"
        source = str(path.relative_to(root))
        for key, value in _read(path, source).items():
            values[key] = Value(_typed(key, value, source, hints, strict=True), source)
    for key, text in flags.items():
        values[key] = Value(_typed(key, text, FLAG, hints, strict=False), FLAG)
    return values


def bind(role: Role, values: Mapping[str, Value]) -> Any:
    """The role's dataclass, filled. Raises DataError when a value without a default is not set."""
    known = _hints(role)
    missing = [
        field.name
        for field in fields(role.data)
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise DataError(
            f"The role {role.name!r} needs a value for {missing[0]!r}. Set it in inventories/group_data/all.py or a stage's."
        )
    return role.data(**{key: value.value for key, value in values.items() if key in known})


def _hints(role: Role) -> dict[str, Any]:
    return get_type_hints(role.data, include_extras=True)


def _read(path: Path, source: str) -> dict[str, Any]:
    """The module's public variables; pyinfra reads group data the same way."""
    if not path.exists():
        return {}
    try:
        found = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{source} cannot be read: {type(error).__name__}: {error}. Correct it and commit."
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
    """What is typed is the text itself, or JSON where that alone fits: a list, a table."""
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
    """msgspec quotes no values of plain types; the first line is the type error alone."""
    return str(error).splitlines()[0].rstrip(".")


def secrets(role: Role, bound: Any) -> list[str]:
    """The role's values whose type is Secret, as text; of a list or a table, each value."""
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
    """Where each of the role's values comes from: key to layer."""
    return {key: values[key].source if key in values else "the role's default" for key in _hints(role)}


def check_declared(roles: Sequence[Role]) -> None:
    """Raises DataError for a default of another type than its field's, and when two roles declare a
    value of the same name with different types."""
    seen: dict[str, tuple[Any, str]] = {}
    for role in roles:
        hints = _hints(role)
        for field in fields(role.data):
            kind, other = hints[field.name], seen.setdefault(field.name, (hints[field.name], role.name))
            if other[0] != kind:
                raise DataError(
                    f"The roles {other[1]!r} and {role.name!r} both have a value {field.name!r}, of different types. Rename one."
                )
            if field.default is not MISSING:
                _typed(
                    field.name,
                    field.default,
                    f"roles/{role.name}",
                    {field.name: (kind, role.name)},
                    strict=True,
                )
