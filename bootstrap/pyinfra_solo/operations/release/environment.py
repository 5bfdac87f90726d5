"""Build a release's virtual environment as an account that may do nothing else. Standard library only.

A package's own code can run while its environment is built: a `.pth` file, a sitecustomize, a build
backend. It runs as ACCOUNT, which owns two fresh folders and nothing else on the machine, in a process
namespace that ends with the build (pid_namespaces(7)). Root then takes the result over.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pyinfra_solo.clients.uv import Uv, passed
from pyinfra_solo.errors import ConvergeError, SourceError
from pyinfra_solo.operations.release.releases import locked
from pyinfra_solo.operations.release.request import Request
from pyinfra_solo.operations.release.takeover import link_out, take_over
from pyinfra_solo.system import processes

ACCOUNT = "pyinfra-solo-build"
_WITHHELD = ("NETRC", "TMPDIR", "HOME")
"""Variables of uv that a build does not get: credentials, and folders of root's."""


class Builder:
    """Builds `tree`/.venv, until the monotonic clock reads `deadline`. scratch: a folder name that is free."""

    def __init__(
        self, request: Request, tree: Path, scratch: Path, deadline: float, log: Callable[[str], None]
    ) -> None:
        self._request, self._tree, self._scratch = request, tree, scratch
        self._deadline, self._log = deadline, log
        self._venv = tree / ".venv"
        self._account = account()

    def build(self) -> None:
        """Build it. Raises SoloError, OSError."""
        run = Path(self._request.run)
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        # One build at a time: two could reach into each other, being of one account.
        with locked(run / "build.lock", self._deadline):
            for folder in (self._venv, self._scratch):
                folder.mkdir(mode=0o700)
                os.chown(folder, self._account.pw_uid, self._account.pw_gid)
            try:
                uv = self._uv()
                self._with_uv(uv) if uv else self._with_pip()
                take_over(self._venv, self._account.pw_uid)
            finally:
                shutil.rmtree(self._scratch, ignore_errors=True)
        outside = link_out(self._tree, self._request.python)
        if outside:
            raise ConvergeError(f"its link {outside} leads out of the release")

    def _uv(self) -> Path | None:
        """Find a uv that the account can run, too: not one in root's home."""
        for found in filter(None, (self._request.uv, shutil.which("uv"))):
            path = Path(found).resolve()
            if path.is_file() and all(one.stat().st_mode & 0o001 for one in (path, *path.parents)):
                return Path(found)
        return None

    def _with_uv(self, path: Path) -> None:
        """With a cache of its own: after a power cut a lasting one could hold truncated files."""
        uv = Uv(
            path, self._scratch, self._deadline, self._log,
            run=self._run, build=self._request.build, compile=False, limit="timeout of the release",
        )  # fmt: skip
        uv.make_environment(self._venv, self._request.python)
        uv.install(self._venv, self._tree / self._request.requirements, [self._request.wheels], None)

    def _with_pip(self) -> None:
        pip = [
            str(self._venv / "bin/python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile",
            "--disable-pip-version-check", "--no-input", "--require-hashes",
            "--requirement", str(self._tree / self._request.requirements),
        ]  # fmt: skip
        if not self._request.build:
            pip += ["--only-binary", ":all:"]
        self._must([self._request.python, "-m", "venv", str(self._venv)])
        if not Path(self._request.wheels).is_dir():
            self._must(pip)
            return
        pip += ["--find-links", self._request.wheels]
        try:
            self._must([*pip, "--no-index"])
        except SourceError as error:
            self._log(f"not in the local wheels ({error}); trying the index")
            self._must(pip)

    def _must(self, words: Sequence[str]) -> None:
        status, output = self._run(words, passed(), self._deadline - time.monotonic())
        if status:
            lines = [line for line in output.splitlines() if line.strip() and not line.startswith("WARNING")]
            raise SourceError((lines or [f"{words[0]} gave no reason"])[-1][:300])

    def _run(self, words: Sequence[str], environment: Mapping[str, str], seconds: float) -> tuple[int, str]:
        """Run a program as the account, in a process namespace that ends with it or with this process.

        Also without new privileges: no setgid crontab, no at(1). Raises TimeoutError, OSError.
        """
        own = {name: value for name, value in environment.items() if name not in _WITHHELD}
        own |= {"HOME": str(self._scratch), "TMPDIR": str(self._scratch)}
        done = processes.run(
            [
                "setpriv", "--pdeathsig", "KILL",
                "unshare", "--pid", "--fork", "--kill-child=KILL",
                "setpriv", f"--reuid={self._account.pw_uid}", f"--regid={self._account.pw_gid}", "--clear-groups",
                "--no-new-privs", "--inh-caps=-all", "--pdeathsig", "KILL", *words,
            ],
            timeout=seconds, environment=own, merge=True, umask=0o022, grace=0.5,
        )  # fmt: skip
        return done.status, done.stdout.decode(errors="replace")


def make_scripts_movable(venv: Path, building: str, final: str) -> None:
    """Replace the path of the building folder in scripts: pip writes it into their first lines."""
    for path in (venv / "bin").iterdir():
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if building.encode() in content and b"\0" not in content:
                path.write_bytes(content.replace(building.encode(), final.encode()))


def account() -> pwd.struct_passwd:
    """Return the account of builds; make it when it is missing or half made. Raises SoloError."""
    try:
        found = pwd.getpwnam(ACCOUNT)
        if found.pw_uid == 0:
            raise ConvergeError(f"the account {ACCOUNT} has the user id 0. Remove it.")
        if found.pw_gid == grp.getgrnam(ACCOUNT).gr_gid:
            return found
    except KeyError:
        pass
    # useradd writes passwd, shadow, group and gshadow one after the other, and may be killed in between.
    for words in (["userdel", ACCOUNT], ["groupdel", ACCOUNT]):
        processes.run(words, timeout=30)
    shell = shutil.which("nologin", path="/usr/sbin:/sbin") or "/bin/false"
    done = processes.run(
        ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", shell, "--password", "*", ACCOUNT],
        timeout=60, merge=True,
    )  # fmt: skip
    if done.status:
        reason = done.stdout.decode(errors="replace").strip()
        raise ConvergeError(f"the account {ACCOUNT} cannot be made: {reason}")
    return pwd.getpwnam(ACCOUNT)
