"""The settings file: every key is checked, and the example shows them all."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyinfra_solo.errors import DataError
from pyinfra_solo.run.settings import Settings, check_ref, check_remote, load
from tests.support.machine import ENGINE

EXAMPLE = ENGINE / "config.example.toml"


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def uncommented(text: str) -> str:
    """Uncomment the keys that the example only shows: comments that have the form of an assignment."""
    return re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)


def keys(tables: dict[str, Any]) -> dict[str, set[str]]:
    return {name: set(table) for name, table in tables.items()}


def test_example_has_the_defaults() -> None:
    assert load(EXAMPLE) == Settings()


def test_example_lists_every_key_and_no_other() -> None:
    listed = tomllib.loads(uncommented(EXAMPLE.read_text()))
    refs = listed["ops"].pop("refs")
    there = keys(msgspec.to_builtins(Settings()))

    assert isinstance(refs, dict)
    assert keys(listed) == {**there, "ops": there["ops"] - {"refs"}}


def test_commented_keys_of_the_example_are_valid(tmp_path: Path) -> None:
    settings = load(written(tmp_path, uncommented(EXAMPLE.read_text())))

    assert settings.ops.deploy_key == Path("/etc/pyinfra-solo/deploy_key")
    assert settings.ops.known_hosts == Path("/etc/pyinfra-solo/known_hosts")
    assert settings.ops.refs == {"production": "production"}
    assert settings.machine.role == "web"


def test_machine_without_a_settings_file_has_the_defaults(machine_root: Path) -> None:
    assert not (machine_root / "etc").exists()
    assert load() == Settings()


def test_settings_file_that_is_given_must_exist(tmp_path: Path) -> None:
    """`--config /etc/pyinfra-slo/config.toml` must not converge a machine by the defaults."""
    assert "There is no settings file" in refusal(tmp_path / "config.tmol")


def test_settings_file_of_the_machine_is_read(machine_root: Path) -> None:
    (machine_root / "etc/pyinfra-solo").mkdir(parents=True)
    (machine_root / "etc/pyinfra-solo/config.toml").write_text("[ops]\nref = 'production'\n")

    assert load().ops.ref == "production"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[ops]\nremote = []", "`remote` - at `$.ops`"),
        ("[opps]\nref = 'main'", "`opps`"),
        ("ref = 'main'", "`ref`"),
        ("[ops]\nref = 3", "$.ops.ref"),
        ("[ops]\nremotes = 'https://git.example.com/ops.git'", "$.ops.remotes"),
        ("[ops]\ndeploy_key = 3", "$.ops.deploy_key"),
        ("[ops]\ndeploy_key = 'key'", "Expected a path that starts with /, got 'key' - at `$.ops.deploy_key`"),
        ("[ops]\nknown_hosts = './hosts'", "$.ops.known_hosts"),
        ("[ops]\nallowed_signers = '~/signers'", "$.ops.allowed_signers"),
        ("[ops]\nrevoked_signers = 'etc/revoked'", "$.ops.revoked_signers"),
        ("[ops]\nrevoked_signers = ''", "$.ops.revoked_signers"),
        ("[ops]\nname = 'Our ops'", "ops.name = 'Our ops' is not a name"),
        ("[ops]\nname = ''", "ops.name = '' is not a name"),
        ("[ops]\nfallback = 'sometimes'", "$.ops.fallback` ('newest', 'last-good', 'none')"),
        ("[ops]\nkeep = 0", "$.ops.keep"),
        ("[ops]\nkeep = 2.5", "$.ops.keep"),
        ("[ops.refs]\nproduction = 1", "$.ops.refs"),
        ("[machine]\nec2 = true", "$.machine.ec2"),
        ("[machine]\nrole = ['web']", "$.machine.role"),
        ("[prepare]\ntimeout = '10 min'", "$.prepare.timeout"),
        ("[prepare]\ntimeout = true", "$.prepare.timeout"),
        ("[limits]\ndeadline = nan", "$.limits.deadline"),
        ("[limits]\ndeadline = inf", "$.limits.deadline"),
        ("[limits]\nlock = -1", "$.limits.lock"),
        ("limits = 3", "$.limits"),
    ],
)  # fmt: skip
def test_wrong_key_or_value_is_named_with_its_file(text: str, named: str, tmp_path: Path) -> None:
    assert named in refusal(written(tmp_path, text))


def test_signers_without_the_name_of_the_ops_repo_are_refused(tmp_path: Path) -> None:
    """A signature does not say for which repository a commit was made."""
    text = "[ops]\nallowed_signers = '/etc/pyinfra-solo/signers'\n"
    assert 'such as name = "shop"' in refusal(written(tmp_path, text))
    assert load(written(tmp_path, text + "name = 'shop'\n")).ops.name == "shop"


def test_whole_seconds_may_be_written_without_a_point(tmp_path: Path) -> None:
    assert load(written(tmp_path, "[limits]\ndeadline = 60\n")).limits.deadline == 60.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ops", "is not TOML"),
        ("[ops]\nref = 'a'\nref = 'b'\n", "is not TOML"),
        (b"[ops]\nref = '\xff\xfe'\n", "cannot be read"),
        (b"\x00", "is not TOML"),
    ],
)
def test_file_that_is_not_toml_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(written(tmp_path, text))


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    "remote",
    [
        "https://git.example.com/acme/ops.git",
        "http://127.0.0.1:8080/ops.git",
        "ssh://git@mirror.example.com:2222/acme/ops.git",
        "git@git.example.com:acme/ops.git",
        "file:///srv/ops.git",
        "/srv/ops.git",
        "https://[::1]:8443/ops.git",
    ],
)
def test_remote_may_be_a_url_an_address_or_a_folder(remote: str) -> None:
    check_remote(remote, "the settings")


@pytest.mark.parametrize(
    "remote",
    [
        "",
        "ops",
        "ext::sh -c true",
        "ext::sh",
        "fd::17/ops",
        "git::https://git.example.com/ops.git",
        "git@host::x",
        "--upload-pack=true",
        "-oProxyCommand=true",
        "-oProxyCommand=true@host:ops.git",
        "-u@host:ops.git",
        "git@-oProxyCommand:ops.git",
        "git@host:-x",
        "ssh://-oProxyCommand=true/ops.git",
        "ssh://git@-oProxyCommand=true/ops.git",
        "git://git.example.com/ops.git",
        "ftp://git.example.com/ops.git",
        "https://git.example.com/ops.git\n",
        "https://git.example.com/ops.git --upload-pack=true",
        "https://git.example.com/\x00",
        "https://git.example.com/\x1b[2J",
        "../ops.git",
    ],
)
def test_remote_that_git_takes_for_an_option_or_helper_is_refused(remote: str, tmp_path: Path) -> None:
    """gitremote-helpers(7): `<transport>::<address>` starts a program; a dash starts an option."""
    with pytest.raises(DataError, match="is not a remote"):
        check_remote(remote, "the settings")
    assert "is not a remote" in refusal(written(tmp_path, f"[ops]\nremotes = [{_toml(remote)}]\n"))


@pytest.mark.parametrize("password", ["hun/ter2", "hun?ter2", "hun#ter2"])
def test_password_that_ends_a_remote_s_host_is_refused_and_not_shown(password: str, tmp_path: Path) -> None:
    """git would take the start of it for a port, and show all of it in its error."""
    remote = f"https://robot:{password}@git.example.com/ops.git"
    message = refusal(written(tmp_path, f"[ops]\nremotes = [{_toml(remote)}]\n"))
    assert "'https://git.example.com/ops.git' is not a remote" in message
    assert "ter2" not in message


REFS = [
    "main",
    "v1.2.3",
    "release/2026-11",
    "feature/a_b+c",
    "0123456789abcdef0123456789abcdef01234567",
    "a" * 255,
]


@pytest.mark.parametrize("ref", REFS)
def test_ref_may_be_a_branch_a_tag_or_a_commit(ref: str) -> None:
    check_ref(ref, "--ref")


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "--upload-pack=x",
        "-f",
        "a..b",
        "../../etc",
        "a//b",
        "a/",
        "a.",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "main:refs/heads/x",
        "+main",
        "refs/heads/*",
        "main^{commit}",
        "main~1",
        "@{-1}",
        "main\n",
        "a b",
        "a" * 256,
        "m\u0430in",
        "main\x00",
    ],
)
def test_ref_that_git_takes_for_something_else_is_refused(ref: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a branch, a tag or a commit"):
        check_ref(ref, "--ref")
    assert "is not a branch" in refusal(written(tmp_path, f"[ops]\nref = {_toml(ref)}\n"))
    assert "is not a branch" in refusal(written(tmp_path, f"[ops.refs]\nstaging = {_toml(ref)}\n"))


@pytest.mark.parametrize("ref", [*REFS, "a.b/c-d", "a+b"])
def test_git_accepts_every_ref_that_is_accepted(ref: str) -> None:
    subprocess.run(["git", "check-ref-format", f"refs/heads/{ref}"], check=True)


def _toml(text: str) -> str:
    """As a basic string, every odd character by its number."""
    return '"' + "".join(c if c.isalnum() and c.isascii() else f"\\U{ord(c):08x}" for c in text) + '"'
