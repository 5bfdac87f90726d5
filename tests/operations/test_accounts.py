"""Accounts: what is missing is found and made, and a home of another leads root nowhere."""

import os
import pwd
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations import accounts, prelude
from pyinfra_solo.operations.accounts import program
from pyinfra_solo.operations.prelude import ProgramError
from tests.operations.conftest import Ask, run
from tests.support.apart import mount_over, run_apart

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another account's files need root")

KEYS = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfakefakefakefake one",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGother two",
]
RIGHT = "\n".join(KEYS) + "\n"
NOBODY = pwd.getpwnam("nobody")


def wanted(name: str, **more: Any) -> dict[str, Any]:
    """The arguments with which `name`, an account of this machine, is right."""
    account = pwd.getpwnam(name)
    right = {"home": account.pw_dir, "shell": account.pw_shell, "system": True, "groups": [], "keys": None}
    return {"name": name, **right, **more}


def gaps(ask: Ask, **arguments: Any) -> list[str]:
    found: list[str] = ask(accounts.PROGRAM, "check", **arguments)
    return found


def test_an_absent_account_is_the_only_gap(ask: Ask) -> None:
    absent = {**wanted("nobody", keys=KEYS, groups=["mail"]), "name": "no-such-account"}
    assert gaps(ask, **absent) == ["account"]


@pytest.mark.parametrize("name", ["root", "daemon", "www-data", "nobody"])
def test_an_account_as_it_was_declared_has_no_gap(ask: Ask, name: str) -> None:
    groups = subprocess.run(["id", "-nG", name], capture_output=True, text=True, check=True).stdout.split()
    assert gaps(ask, **wanted(name, groups=groups)) == []


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"shell": "/bin/zsh"}, ["shell"]),
        ({"groups": ["mail"]}, ["groups"]),
        ({"groups": ["no-such-group"]}, ["groups"]),
        ({"home": "/nowhere"}, []),
        ({"home": "/nowhere", "system": False}, ["home"]),
        ({"home": "/etc/passwd", "system": False, "shell": "/x"}, ["shell", "home"]),
    ],
)
def test_each_gap_is_named(ask: Ask, more: dict[str, Any], found: list[str]) -> None:
    assert gaps(ask, **wanted("daemon", **more)) == found


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of nobody's, below a folder that nobody may enter."""
    folder = Path("/tmp") / f"home-of-nobody-{os.getpid()}"  # noqa: S108 - nobody may enter nothing else
    (folder / ".ssh").mkdir(parents=True)
    own(folder)
    yield folder
    shutil.rmtree(folder)


def own(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)


def with_keys(home: Path, keys: list[str] | None = None) -> dict[str, Any]:
    return wanted("nobody", home=str(home), keys=KEYS if keys is None else keys)


@pytest.mark.parametrize(
    ("text", "keys", "found"),
    [
        (RIGHT, KEYS, []), (RIGHT.rstrip("\n"), KEYS, []), (RIGHT + "\n", KEYS, []), ("\n", [], []), (None, [], []),
        (RIGHT + "#", KEYS, ["keys"]), (KEYS[0] + "\n", KEYS, ["keys"]), ("", KEYS, ["keys"]),
        (None, KEYS, ["keys"]), (RIGHT, [], ["keys"]),
    ],
)  # fmt: skip
def test_keys_are_right_when_they_are_exactly_those(
    ask: Ask, home: Path, text: str | None, keys: list[str], found: list[str]
) -> None:
    if text is not None:
        (home / ".ssh/authorized_keys").write_text(text)
    own(home)
    assert gaps(ask, **with_keys(home, keys)) == found


def fifo(file: Path) -> None:
    os.mkfifo(file)


def link_to_a_device(file: Path) -> None:
    file.symlink_to("/dev/urandom")


def sparse_file(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(5 << 30)


def link_to_the_right_keys(file: Path) -> None:
    (file.parent / "elsewhere").write_text(RIGHT)
    file.symlink_to("elsewhere")


def linked_folder(file: Path) -> None:
    (file.parent.parent / "elsewhere").mkdir()
    (file.parent.parent / "elsewhere/authorized_keys").write_text(RIGHT)
    file.parent.rmdir()
    file.parent.symlink_to("elsewhere")


def file_in_place_of_the_folder(file: Path) -> None:
    file.parent.rmdir()
    file.parent.write_text("")


def fifo_in_place_of_the_new_file(file: Path) -> None:
    os.mkfifo(file.with_name(".authorized_keys.new"))


@pytest.mark.parametrize(
    "make",
    [fifo, link_to_a_device, sparse_file, link_to_the_right_keys, linked_folder, file_in_place_of_the_folder,
     fifo_in_place_of_the_new_file],
)  # fmt: skip
def test_keys_that_are_no_small_regular_file_are_wrong_and_replaced(ask: Ask, home: Path, make: Any) -> None:
    """Nothing hangs, nothing grows, and no link is followed."""
    make(home / ".ssh/authorized_keys")
    own(home)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert gaps(ask, **with_keys(home)) == ["keys"]
    done = run(accounts.PROGRAM, "apply", **with_keys(home))
    assert done.returncode == 0, done.stderr
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100 * 1024
    written = home / ".ssh/authorized_keys"
    assert not written.is_symlink()
    about = (written.read_text(), written.owner(), oct(written.stat().st_mode))
    assert about == (RIGHT, "nobody", "0o100600")
    assert gaps(ask, **with_keys(home)) == []


def test_keys_of_another_owner_are_read_with_the_accounts_rights(ask: Ask, home: Path) -> None:
    """As sshd does: an image may bring keys that are root's and readable."""
    file = home / ".ssh/authorized_keys"
    file.write_text(RIGHT)
    assert gaps(ask, **with_keys(home)) == []
    file.chmod(0o600)
    assert gaps(ask, **with_keys(home)) == ["keys"]


def test_keys_of_a_home_that_the_account_may_not_enter_are_missing(ask: Ask, home: Path) -> None:
    (home / ".ssh/authorized_keys").write_text(RIGHT)
    own(home)
    os.chown(home, 0, 0)
    home.chmod(0o700)
    assert gaps(ask, **with_keys(home)) == ["keys"]
    done = run(accounts.PROGRAM, "apply", **with_keys(home))
    assert done.returncode == 1
    assert done.stderr.startswith("nobody: [Errno 13] Permission denied")


def test_a_home_that_does_not_answer_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account may mount a file system of its own, whose reads never end."""
    monkeypatch.setattr(prelude, "_ACCOUNT_SECONDS", 1)
    monkeypatch.setattr(program, "_contents", lambda _home, owner: _never(owner))
    with pytest.raises(ProgramError, match="its home did not answer for 1 s"):
        program.check(**with_keys(home))


def _never(owner: int | None) -> str:
    if owner is not None:
        raise PermissionError
    signal.pause()
    return ""


def change_accounts(folder: str) -> list[Any]:
    """What each call of the program finds, writes and leaves, on an /etc and a /home of its own."""
    (Path(folder) / "home").mkdir()
    subprocess.run(["cp", "-a", "/etc", folder], check=True)
    for name in ("etc", "home"):
        mount_over(f"/{name}", Path(folder, name))
    found: list[Any] = []

    def both(account: str, login: str = "/bin/bash", **more: Any) -> None:
        right = {"home": f"/home/{account}", "shell": login, "system": False, "groups": [], "keys": [KEYS[1]]}
        arguments = {"name": account, **right, **more}
        before = accounts.PROGRAM.call("check", arguments)
        done = run(accounts.PROGRAM, "apply", **arguments)
        left = accounts.PROGRAM.call("check", arguments)
        found.append([before, done.stdout.split("\n")[0], done.stderr, left])

    both("one", "/bin/sh", keys=[KEYS[0]], groups=["mail", "crew"])
    both("one")
    for torn in (["shadow"], ["gshadow"], ["group", "gshadow"]):
        subprocess.run(["sed", "-i", "/^one:/d", *(f"/etc/{name}" for name in torn)], check=True)
        both("one")
    both("two", "/usr/sbin/nologin", home="/nonexistent", system=True, keys=None)
    both("three", "/no:colon", keys=[])
    passwords = dict(line.split(":")[:2] for line in Path("/etc/shadow").read_text().splitlines())
    groups = subprocess.run(["id", "-nG", "one"], capture_output=True, text=True, check=True).stdout.split()
    home = Path("/home/one")
    found.append([
        passwords["one"], passwords["two"], groups, sorted(path.name for path in home.iterdir()),
        (home / ".ssh/authorized_keys").read_text(), home.owner(), home.group(), oct(home.stat().st_mode),
        (home / ".profile").owner(), [path.name for path in Path("/home").iterdir()],
    ])  # fmt: skip
    return found


def test_an_account_is_made_changed_and_completed(tmp_path: Path) -> None:
    """On an /etc and a /home of its own; useradd(8) may have been killed between any two of its files."""
    *calls, end = run_apart(change_accounts, tmp_path, own_mounts=True)
    assert calls == [
        [["account"], "one: created", "", []],
        [["shell", "keys"], "", "", []],
        [["half"], "one: was half made", "", []],
        [["half"], "one: was half made", "", []],
        [["half"], "one: was half made", "", []],
        [["account"], "two: created", "", []],
        [["account"], "", "useradd: invalid shell '/no:colon'\n", ["account"]],
    ]
    assert end == [
        "*", "*", ["one", "mail", "crew"], [".bash_logout", ".bashrc", ".profile", ".ssh"],
        f"{KEYS[1]}\n", "one", "one", "0o40750", "one", ["one"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("account", "options", "reason"),
    [
        ("Robert'); --", {}, "not a name for an account"),
        ("one", {"groups": ["a,b"]}, "not a name for an account"),
        ("one", {"shell": "bash"}, "not the full path of a program"),
        ("one", {"keys": ["ssh-ed25519 AAAA\nssh-ed25519 BBBB"]}, "not a public key of one line"),
        ("one", {"keys": [f"ssh-ed25519 {'A' * 70_000}"]}, "more than 65536 bytes"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(account: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        accounts.person(account, name="an account", **options)
