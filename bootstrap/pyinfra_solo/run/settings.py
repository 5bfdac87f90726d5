"""Read the settings file, TOML, into frozen values. An unknown key is an error that names it.

`bootstrap/config.example.toml` documents every key; a test compares it with these defaults.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.errors import DataError
from pyinfra_solo.protocol import Drain
from pyinfra_solo.system.text import NAME, without_password

Seconds = Annotated[float, msgspec.Meta(ge=0, le=31_536_000)]
"""0 to a year. TOML has nan and inf, which no system call takes."""
Count = Annotated[int, msgspec.Meta(ge=1)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the file's tables."""


class Ops(Table, frozen=True):
    """[ops]: where the ops repo is, which commit is wanted, and whose signature is trusted."""

    remotes: tuple[str, ...] = ()
    """Tried in order. Empty: only a folder given by hand can be converged."""
    name: str | None = None
    """The ops repo's own name, which each commit has in its ops.toml. Required with allowed_signers."""
    ref: str = "main"
    """A branch, a tag, or a commit of 40 hexadecimal digits."""
    refs: dict[str, str] = {}
    """A stage's own ref, by the stage's name."""
    deploy_key: Path | None = None
    known_hosts: Path | None = None
    allowed_signers: Path | None = None
    """ssh-keygen(1), ALLOWED SIGNERS. When set, an unsigned commit never reaches the disk."""
    revoked_signers: Path | None = None
    timeout: Seconds = 60.0
    """For each remote."""
    fallback: Literal["newest", "last-good", "none"] = "newest"
    """Commit to use when no remote answers: the newest that was fetched for that ref, the last one that
    was judged ready, or none."""
    keep: Count = 3


class Machine(Table, frozen=True):
    """[machine]: role and stage of a machine whose tags and security groups do not name them."""

    role: str | None = None
    stage: str | None = None
    ec2: Literal["auto", "yes", "no"] = "auto"
    """Is this machine on EC2? auto: when DMI, or the hypervisor's uuid, says so."""
    tags: Literal["auto", "metadata", "api", "none"] = "auto"
    """Source of instance tags: the metadata service, then the EC2 API (auto), or only one of them."""


class Prepare(Table, frozen=True):
    """[prepare]: how the runtime is built from the lock file."""

    wheels: tuple[str, ...] = ()
    """Folders or URLs of wheels, in addition to the image's own."""
    index: str | None = None
    """A package index other than uv's default."""
    python: str = "/usr/bin/python3"
    timeout: Seconds = 600.0


class Converge(Table, frozen=True):
    """[converge]: how operations are run and verified."""

    native: bool = True
    """Gather facts and run plain commands in the process, not by pyinfra's shell commands."""
    idempotence: Literal["report", "refuse"] = "report"
    """After a converge that changed something, each operation is evaluated once more. One that would
    change something once more is reported, or also keeps the gate closed."""


class Limits(Table, frozen=True):
    """[limits]: times in seconds, the number of reports, and when a run closes the gate."""

    deadline: Seconds = 1800.0
    operation: Seconds = 600.0
    lock: Seconds = 60.0
    metadata: Seconds = 120.0
    drain: Drain = "on-change"
    reports: Count = 30


class Settings(Table, frozen=True):
    """All tables of the file."""

    ops: Ops = Ops()
    machine: Machine = Machine()
    prepare: Prepare = Prepare()
    converge: Converge = Converge()
    limits: Limits = Limits()


def load(path: Path | None = None) -> Settings:
    """Read the settings file; without one return the defaults. A `path` that is given must exist.

    Raises DataError, naming the file and the key.
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
        raise DataError(
            f"{path}: {error}{_allowed(str(error))}. bootstrap/config.example.toml lists every key."
        ) from error
    for remote in settings.ops.remotes:
        check_remote(remote, str(path))
    _check_name(settings.ops, path)
    for place in (settings.prepare.index or "", *settings.prepare.wheels):
        if without_password(place) != place:
            raise DataError(
                f"{path}: a package index with a password in its URL would show in `ps`. Use a netrc file."
            )
    for ref in (settings.ops.ref, *settings.ops.refs.values()):
        check_ref(ref, str(path))
    return settings


def _allowed(error: str) -> str:
    """Name the values that msgspec's message about a wrong one leaves out."""
    place = re.search(r"^Invalid enum value .* - at `\$\.(\w+)\.(\w+)`$", error)
    if not place:
        return ""
    table = {field.name: field.type for field in msgspec.structs.fields(Settings)}[place[1]]
    kind = {field.name: field.type for field in msgspec.structs.fields(table)}[place[2]]
    return f" ({', '.join(map(repr, get_args(kind)))})"


def _path(kind: type[Any], value: Any) -> Any:
    """Convert to Path, which msgspec does not know. git would resolve a relative one in its own folder."""
    if kind is not Path or not isinstance(value, str):
        raise ValueError(f"Expected `str`, got `{type(value).__name__}`")
    if not value.startswith("/"):
        raise ValueError(f"Expected a path that starts with /, got {value!r}")
    return Path(value)


def _check_name(ops: Ops, path: Path) -> None:
    """Raise DataError unless ops.name is a name, and there is one when signatures are asked for.

    A signature says who signed a commit, not for which repository.
    """
    if ops.name is None and ops.allowed_signers:
        raise DataError(
            f"{path}: [ops] has allowed_signers, and no name. Add the line that ops.toml of the ops repo has, "
            'such as name = "shop": a commit that is signed for another repository is then refused.'
        )
    if ops.name is not None and not NAME.fullmatch(ops.name):
        raise DataError(
            f"{path}: ops.name = {ops.name!r} is not a name. Use a-z, then a-z, 0-9, _ or -, 63 at most."
        )


def check_remote(remote: str, source: str) -> None:
    """Raise DataError unless `remote` is an https, http, ssh or file URL, user@host:path or a folder.

    git would take a word that starts with a dash as an option, and run `ext::` as a command
    (gitremote-helpers(7)).
    """
    rest = r"[^\s\x00-\x1f\x7f]*"
    url = rf"(https?|ssh|file)://(?!-|[^\s/]*@-)\S{rest}|(?!-)[\w.-]+@(?!-)[\w.-]+:(?![:-])\S{rest}|/\S{rest}"
    if not re.fullmatch(url, remote) or not _has_a_port(remote):
        raise DataError(
            f"{source}: {without_password(remote)!r} is not a remote. Use https://, ssh://, user@host:path or a folder; in a password, %2F for /."
        )


def _has_a_port(url: str) -> bool:
    """Check that the port, if there is one, is a number: else it is the start of a password with a / in it."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        return False
    return True


def check_ref(ref: str, source: str) -> None:
    """Raise DataError unless `ref` can be a branch, a tag or a commit (git-check-ref-format(1))."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}", ref) or re.search(
        r"\.\.|//|/\.|\.lock(/|$)|[./]$", ref
    ):
        raise DataError(f"{source}: {ref!r} is not a branch, a tag or a commit.")
