"""The settings file: TOML, read once into frozen values; a key that is not known is refused by name.

`bootstrap/config.example.toml` is this module's manual, and a test holds that it says the defaults.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.errors import DataError
from pyinfra_solo.system.text import without_password

Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]
"""Neither nan nor inf, which TOML has, and which no system call takes."""
Count = Annotated[int, msgspec.Meta(ge=1)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file."""


class Ops(Table, frozen=True):
    """The ops repo: where it is, what is wanted of it, and whom to believe."""

    remotes: tuple[str, ...] = ()
    """Tried in order. Empty: only a folder given by hand can be converged."""
    ref: str = "main"
    """A branch, a tag, or a commit of 40 hexadecimal digits."""
    refs: dict[str, str] = {}
    """A stage's own ref, by the stage's name."""
    deploy_key: Path | None = None
    known_hosts: Path | None = None
    allowed_signers: Path | None = None
    """ssh-keygen(1), ALLOWED SIGNERS. When set, an unsigned commit never reaches the disk."""
    revoked_signers: Path | None = None
    within: Seconds = 60.0
    """Seconds for each remote."""
    on_disk: Literal["newest", "good", "never"] = "newest"
    """When no remote answers: the newest commit fetched for that ref, the last that was judged
    ready, or none."""
    keep: Count = 3


class Machine(Table, frozen=True):
    """What this machine is, where nothing else says so."""

    role: str | None = None
    stage: str | None = None
    ec2: Literal["auto", "yes", "no"] = "auto"
    tags: Literal["auto", "metadata", "api", "none"] = "auto"
    """Where instance tags are read: the metadata service, then the EC2 API (auto), or just one."""


class Prepare(Table, frozen=True):
    """How a runtime is made from the lock file."""

    wheels: tuple[str, ...] = ()
    """More folders or URLs of wheels, beside the image's own."""
    index: str | None = None
    """A package index other than uv's default."""
    python: str = "/usr/bin/python3"
    within: Seconds = 600.0


class Converge(Table, frozen=True):
    """How operations are run, and proven."""

    native: bool = True
    """Looks at the machine and plain commands are done in the process, not by a shell."""
    idempotence: Literal["report", "refuse"] = "report"
    """After a converge that changed something, each operation is looked at again. What would change
    something once more is reported, or also keeps the gate closed."""


class Limits(Table, frozen=True):
    """Bounds in seconds, and how a machine in service is treated."""

    deadline: Seconds = 1800.0
    operation: Seconds = 600.0
    lock: Seconds = 60.0
    metadata: Seconds = 120.0
    drain: Literal["on-change", "always", "never"] = "on-change"
    reports: Count = 30


class Settings(Table, frozen=True):
    """The whole file."""

    ops: Ops = Ops()
    machine: Machine = Machine()
    prepare: Prepare = Prepare()
    converge: Converge = Converge()
    limits: Limits = Limits()


def load(path: Path | None = None) -> Settings:
    """Read the settings file. A machine without one has the defaults; a `path` that is given must be there.

    Raises DataError naming the file and the key.
    """
    given, path = path, path or paths.CONFIG
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        if given is None:
            return Settings()
        raise DataError(f"There is no settings file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    try:
        values: dict[str, Any] = tomllib.loads(text)
        settings = msgspec.convert(values, Settings, strict=True, dec_hook=_path)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not TOML: {error}.") from error
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {error}. bootstrap/config.example.toml lists every key.") from error
    for remote in settings.ops.remotes:
        check_remote(remote, str(path))
    for place in (settings.prepare.index or "", *settings.prepare.wheels):
        if without_password(place) != place:
            raise DataError(
                f"{path}: a package index with a password in its URL would show in `ps`. Use a netrc file."
            )
    for ref in (settings.ops.ref, *settings.ops.refs.values()):
        check_ref(ref, str(path))
    return settings


def _path(kind: type[Any], value: Any) -> Any:
    """msgspec has no Path of its own."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def check_remote(remote: str, source: str) -> None:
    """Raises DataError unless git may be given `remote`: an https, http, ssh or file URL, or
    user@host:path. A word that starts with a dash would be an option, and `ext::` a command
    (gitremote-helpers(7))."""
    rest = r"[^\s\x00-\x1f\x7f]*"
    url = rf"(https?|ssh|file)://(?!-|[^\s/]*@-)\S{rest}|(?!-)[\w.-]+@(?!-)[\w.-]+:(?![:-])\S{rest}|/\S{rest}"
    if not re.fullmatch(url, remote):
        raise DataError(
            f"{source}: {without_password(remote)!r} is not a remote. Use https://, ssh://, user@host:path or a folder."
        )


def check_ref(ref: str, source: str) -> None:
    """Raises DataError unless `ref` can name a branch, a tag or a commit (git-check-ref-format(1))."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}", ref) or re.search(
        r"\.\.|//|/\.|\.lock(/|$)|[./]$", ref
    ):
        raise DataError(f"{source}: {ref!r} is not a branch, a tag or a commit.")
