"""Our own operations' looks: what is answered in the process is what their shell programs say."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native.registry import answer_to
from pyinfra_solo.operations import accounts, packages, service
from pyinfra_solo.operations import native_facts as roles
from tests.support.machine import REPOSITORY

SCRIPTS = REPOSITORY / "bootstrap/pyinfra_solo/operations"
KEYS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfakefakefakefake one\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGother two"


def said(name: str, *words: str) -> list[str]:
    done = subprocess.run(
        ["sh", str(next(SCRIPTS.glob(f"*/{name}.sh"))), *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "fact", [packages.MissingPackages, accounts.AccountGaps, service.Baseline, service.ServiceState]
)
def test_the_facts_that_every_role_asks_are_answered(fact: type) -> None:
    assert answer_to(fact) is not None


INSTALLED = ["dpkg", "coreutils", "libc6", "tar"]
ABSENT = ["no-such-package", "hello-traditional", "dpk", "coreutil"]


def test_packages_are_missing_that_dpkg_does_not_have() -> None:
    for wanted in (INSTALLED, ABSENT, [*ABSENT[:2], *INSTALLED, ABSENT[2]], [], ["dpkg", "dpkg"]):
        assert roles.missing_packages(wanted) == said("packages", "look", *wanted)


def test_every_package_of_this_machine_is_seen_as_dpkg_sees_it() -> None:
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for line in listed:
        state, name = line.split()
        assert roles.missing_packages([name]) == ([] if state in ("ii", "hi") else [name])


def test_a_package_of_two_architectures_is_left_to_dpkg(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """dpkg-query tells both states, and the first is what counts."""
    stanza = "Package: libc6\nStatus: {} ok {}\nArchitecture: {}\n\n"
    (tmp_path / "status").write_text(
        stanza.format("deinstall", "config-files", "amd64") + stanza.format("install", "installed", "i386")
    )
    real = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: real(tmp_path / "status" if path.name == "status" else path)
    )
    assert roles.missing_packages(["libc6"]) is UNKNOWN


@pytest.mark.parametrize(
    ("text", "noted"),
    [("a\nb\n", ("a", "b")), ("a\n", ("a", "")), ("a", ("", "")), ("a\nb\nc\n", ("a", "b")), ("", ("", ""))],
)
def test_a_torn_record_counts_as_its_program_counts_it(
    tmp_path: Path, text: str, noted: tuple[str, str]
) -> None:
    (tmp_path / "record").write_text(text)
    assert roles._noted(tmp_path / "record") == noted


@pytest.mark.parametrize("name", ["libc6:amd64", "a b", "*", "-x"])
def test_what_is_no_plain_name_of_a_package_is_left_to_dpkg(name: str) -> None:
    assert roles.missing_packages([name]) is UNKNOWN


ACCOUNTS = ["root", "daemon", "www-data", "nobody", "no-such-account"]


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_lacks_what_its_program_says(account: str, tmp_path: Path) -> None:
    answered = 0
    for home, shell, system, groups, keys in itertools.product(
        ("/root", "/nowhere", str(tmp_path)), ("/bin/bash", "/usr/sbin/nologin"), ("yes", "no"),
        ("", "daemon", "www-data,root", "no-such-group"), ("-", "", KEYS),
    ):  # fmt: skip
        words = [account, home, shell, system, groups, keys]
        found = roles.account_gaps(words)
        if found is not UNKNOWN:
            answered += 1
            assert found == said("account", "look", *words)
    assert answered > 20


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of nobody's, where nobody may look."""
    folder = Path("/tmp") / f"home-of-nobody-{os.getpid()}"  # noqa: S108 - nobody may look into nothing else
    folder.mkdir()
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("text", [KEYS, KEYS + "\n", KEYS + "\n\n", KEYS + "\n#", "", "\n", KEYS[:-1]])
def test_keys_are_right_when_their_program_says_so(home: Path, text: str) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh/authorized_keys").write_text(text)
    for path in (home / ".ssh", home / ".ssh/authorized_keys"):
        os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    words = ["nobody", str(home), "/usr/sbin/nologin", "no", "", KEYS]
    assert roles.account_gaps(words) == said("account", "look", *words)


def test_keys_behind_a_link_are_left_to_the_program_which_reads_as_the_account(home: Path) -> None:
    (home / ".ssh").symlink_to("/root/.ssh")
    assert roles.account_gaps(["nobody", str(home), "/usr/sbin/nologin", "no", "", KEYS]) is UNKNOWN


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0\\\n\r", exclude_categories=["Cs"]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.dictionaries(NAMES.filter(lambda name: name not in (".", "..")), st.binary(max_size=20), max_size=6),
    st.lists(NAMES, max_size=3),
)
def test_a_digest_of_what_a_service_reads_is_its_programs(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], targets: list[str]
) -> None:
    """Both write it down for the other to read."""
    folder = tmp_path_factory.mktemp("reads")
    (folder / "in").mkdir()
    for number, (name, data) in enumerate(files.items()):
        (folder / ("in" if number % 2 else ".") / name).write_bytes(data)
    for number, target in enumerate(targets):
        (folder / "in" / f"link-{number}").symlink_to(target)
    words = [
        f"restart={path}" for path in (folder, folder / "in/link-0", folder / "nothing", *folder.glob("*"))
    ]
    program = (SCRIPTS / "service/service.sh").read_text().removesuffix(
        '"$mode" "$@"\n'
    ) + 'digest restart "$@"\n'
    done = subprocess.run(
        ["sh", "-c", program, "service", "look", "name", "/run", "yes", "yes", "no", *words, "reload=/etc/passwd"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert roles._digest("restart", words) == done.stdout.strip()
