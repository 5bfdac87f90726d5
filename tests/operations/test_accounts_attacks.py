"""An account cannot keep its operation from succeeding, whatever it puts into its home."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.operations import accounts, prelude
from pyinfra_solo.operations.accounts import program
from pyinfra_solo.operations.prelude import ProgramError
from tests.operations.conftest import run
from tests.support.line import Line
from tests.support.programs import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another account's files need root")

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfakefakefakefake one"
NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups"]


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path("/tmp") / f"attacked-home-{os.getpid()}"  # noqa: S108 - nobody must be able to enter it
    folder.mkdir()
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    yield folder
    shutil.rmtree(folder)


def wanted(home: Path, keys: list[str]) -> dict[str, Any]:
    return {
        "name": "nobody", "home": str(home), "shell": NOBODY.pw_shell, "system": True, "groups": [], "keys": keys,
    }  # fmt: skip


EVIL = "mkdir -p .ssh; echo evil > .ssh/authorized_keys"


@pytest.mark.parametrize("keys", [[KEY], []], ids=["a key", "no key"])
@pytest.mark.parametrize(
    "attack",
    [
        f"{EVIL}; chmod 0 .ssh/authorized_keys", f"{EVIL}; chmod 0 .ssh", f"{EVIL}; chmod 500 .ssh",
        f"{EVIL}; chmod 0 .", f"{EVIL}; chmod 500 .", "mkdir -p .ssh/authorized_keys/x/y",
        f"{EVIL}; mkdir -p .ssh/.authorized_keys.new/x", "echo x > .ssh", "mkdir d; ln -s d .ssh; echo x > d/authorized_keys",
    ],
)  # fmt: skip
def test_keys_are_right_after_apply_whatever_the_account_did(
    home: Path, attack: str, keys: list[str]
) -> None:
    subprocess.run([*AS_NOBODY, "sh", "-c", attack], cwd=home, check=True)
    if keys or "500" not in attack:
        assert program.check(**wanted(home, keys)) == ["keys"]
    done = run(accounts.PROGRAM, "apply", **wanted(home, keys))

    assert (done.returncode, done.stderr) == (0, "")
    assert program.check(**wanted(home, keys)) == []
    assert (home / ".ssh/authorized_keys").read_text() == "".join(f"{key}\n" for key in keys)


@contextmanager
def looping(home: Path, code: str, expected: Path) -> Iterator[None]:
    """Let three processes of the account run `code` without an end."""
    text = f"import os\nwhile True:\n try:\n  {code}\n except OSError: pass"
    words = [*AS_NOBODY, sys.executable, "-I", "-S", "-c", text]
    started = [subprocess.Popen(words, cwd=home) for _ in range(3)]
    try:
        wait_for("the account at work", lambda: os.path.lexists(expected), 20)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "code",
    ["os.mkdir('.ssh/authorized_keys')", "os.rename('.ssh', os.urandom(8).hex())"],
    ids=["file", "folder"],
)
def test_account_that_keeps_keys_from_its_file_does_not_fail_apply(home: Path, code: str) -> None:
    """Each try would find the account's work in its way. The second moves the whole folder away."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    again = f"os.mkdir('.ssh') if not os.path.exists('.ssh') else {code}"
    with looping(home, again, folder / "authorized_keys" if "authorized" in code else home):
        for _ in range(5):
            done = run(accounts.PROGRAM, "apply", **wanted(home, [KEY]))
            assert (done.returncode, done.stderr) == (0, "")
    run(accounts.PROGRAM, "apply", **wanted(home, [KEY]))
    assert (folder / "authorized_keys").read_text() == f"{KEY}\n"


def test_account_that_changes_its_keys_afterwards_is_idempotent(tmp_path: Path) -> None:
    """Else its loop keeps the gate closed with converge.idempotence = "refuse"."""
    name = f"changes-{os.getpid()}"
    line = Line(tmp_path)
    try:
        line.put_in_service(f"""
from pyinfra_solo.operations import accounts
accounts.person("{name}", name="the person", keys=["{KEY}"])
server.shell(name="it adds a key", commands=["echo evil >>/home/{name}/.ssh/authorized_keys"])
""")
        assert [one["name"] for one in line.report["not_idempotent"]] == ["site | it adds a key"]
    finally:
        subprocess.run(["userdel", "--remove", name], check=False, capture_output=True)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_account_may_not_signal_roots_child(number: int) -> None:
    """kill(2): the sender's user must be the real or the saved user of who gets the signal."""
    reader, writer = os.pipe()
    go, gone = os.pipe()
    tester = os.fork()
    if tester == 0:  # sends the signal as the account, as soon as it knows the child's number
        os.setresgid(NOBODY.pw_gid, NOBODY.pw_gid, NOBODY.pw_gid)
        os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, NOBODY.pw_uid)
        try:
            os.kill(int(os.read(reader, 20)), number)
            os.write(gone, b"sent")
        except PermissionError:
            os.write(gone, b"refused")
        os._exit(0)

    def call() -> str:
        os.write(writer, str(os.getpid()).encode())
        return os.read(go, 20).decode()

    assert prelude.as_account(NOBODY, call) == "refused"
    os.waitpid(tester, 0)


def test_a_child_has_the_accounts_rights_to_files(home: Path) -> None:

    def call() -> list[Any]:
        (home / "made").touch()
        return [os.access("/etc/shadow", os.R_OK, effective_ids=True), (home / "made").stat().st_uid]

    assert prelude.as_account(NOBODY, call) == [False, NOBODY.pw_uid]


def test_a_stopped_child_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prelude, "_ACCOUNT_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(ProgramError, match=r"did not answer for 0\.5 s"):
        prelude.as_account(NOBODY, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    assert time.monotonic() - began < 5
