"""Build a release's virtual environment as an account that may do nothing else. Standard library only.

A package's own code can run while its environment is built: a `.pth` file, a sitecustomize, a build
backend. It runs as ACCOUNT, which owns two fresh folders that no other account can reach, in a process
namespace that ends with the build (pid_namespaces(7)) and a mount namespace in which all else is
read-only (see namespace.py). Root then takes the result over.
"""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pyinfra_solo.clients.uv import Uv, passed
from pyinfra_solo.errors import ConvergeError, SourceError
from pyinfra_solo.operations.release import namespace, size
from pyinfra_solo.operations.release.releases import locked
from pyinfra_solo.operations.release.request import Request
from pyinfra_solo.operations.release.takeover import take_over
from pyinfra_solo.system import metadata, processes

ACCOUNT = "pyinfra-solo-build"
_WITHHELD = ("NETRC", "TMPDIR", "HOME")
"""Variables of uv that a build does not get: credentials, and folders of root's."""
_GROUPS = range(60578, 61184)
"""Ids that systemd, Debian and shadow leave free (systemd, UIDS-GIDS.md)."""


class Builder:
    """Builds the environment of the tree in the folder `building`.

    deadline: seconds on the monotonic clock. building: only root can enter it. final: the path that the tree will have, which the build sees already.
    """

    def __init__(
        self, request: Request, building: Path, final: Path, deadline: float, log: Callable[[str], None]
    ) -> None:
        self._request, self._deadline, self._log = request, deadline, log
        self._tree, self._scratch = building / "tree", building / "scratch"
        self._final, self._home, self._venv = final, final.with_name("scratch"), final / ".venv"
        self._uid = account().pw_uid
        self._watch = size.watch(building, request.max_bytes)
        # ptrace(2) needs the same group, too: what of the account a build left outside reaches no other build.
        self._gid = secrets.choice(_GROUPS)

    def build(self) -> None:
        """Build it. Raises SoloError, OSError."""
        run = Path(self._request.run)
        run.mkdir(mode=0o755, parents=True, exist_ok=True)
        # One build at a time: two could reach into each other, being of one account.
        with locked(run / "build.lock", self._deadline):
            for folder in (self._tree / ".venv", self._scratch):
                folder.mkdir(mode=0o700)
                os.chown(folder, self._uid, self._gid)
            end_all(self._uid, self._deadline)
            with metadata.denied(self._uid) as reason:
                if reason:
                    self._log(f"code of packages can ask the metadata service while they are built: {reason}")
                uv = self._uv()
                self._with_uv(uv) if uv else self._with_pip()
                end_all(self._uid, self._deadline)
            python = self._request.python
            take_over(self._tree / ".venv", self._uid, (python, os.path.realpath(python)))

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
            path, self._home, self._deadline, self._log,
            run=self._run, build=self._request.build, compile=False, limit="timeout of the release",
        )  # fmt: skip
        uv.make_environment(self._venv, self._request.python)
        uv.install(self._venv, self._final / self._request.requirements, [self._request.wheels], None)

    def _with_pip(self) -> None:
        pip = [
            str(self._venv / "bin/python"), "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-compile",
            "--disable-pip-version-check", "--no-input", "--require-hashes",
            "--requirement", str(self._final / self._request.requirements),
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
        """Run a program as the account, in namespaces that end with it or with this process.

        Also without new privileges: no setgid crontab, no at(1). Raises TimeoutError, OSError.
        """
        own = {name: value for name, value in environment.items() if name not in _WITHHELD}
        own |= {"HOME": str(self._home), "TMPDIR": str(self._home)}
        done = processes.run(
            [
                "setpriv", "--pdeathsig", "KILL",
                "unshare", "--pid", "--fork", "--kill-child=KILL",
                "setpriv", f"--reuid={self._uid}", f"--regid={self._gid}", "--clear-groups",
                "--no-new-privs", "--inh-caps=-all", "--pdeathsig", "KILL", *words,
            ],
            timeout=seconds, environment=own, merge=True, umask=0o022, grace=0.5,
            before_exec=self._enter, meanwhile=self._watch,
        )  # fmt: skip
        return done.status, done.stdout.decode(errors="replace")

    def _enter(self) -> None:
        try:
            namespace.enter(self._tree, self._final, self._scratch)
        except OSError as error:  # subprocess would hide the reason
            os.write(2, f"a mount namespace cannot be made: {error}\n".encode())
            os._exit(1)


def end_all(uid: int, until: float) -> None:
    """End all processes of the account `uid` but those of containers.

    until: seconds on the monotonic clock. Raises ConvergeError when one is left.
    """
    while left := _processes_of(uid):
        if time.monotonic() > until:
            raise ConvergeError(f"the processes {left} of the account {ACCOUNT} cannot be ended. End them.")
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _processes_of(uid: int) -> list[int]:
    """List the processes one of whose user ids is `uid` (proc(5), /proc/PID/status)."""
    ours = Path("/proc/self/ns/pid").readlink()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            status = (path / "status").read_text(errors="replace")
            ids = status.partition("\nUid:")[2].partition("\n")[0].split()
            alive = "\nState:\tZ" not in status
            if str(uid) in ids and alive and (path / "ns/pid").readlink() == ours:
                found.append(int(path.name))
    return found


def account() -> pwd.struct_passwd:
    """Return the account of builds; make it when it is missing or half made. Raises SoloError."""
    try:
        found = pwd.getpwnam(ACCOUNT)
        if found.pw_uid == 0:
            raise ConvergeError(f"the account {ACCOUNT} has the user id 0. Remove it.")
        if found.pw_gid == grp.getgrnam(ACCOUNT).gr_gid and not _is_half_made():
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
    os.sync()  # useradd does not sync
    return pwd.getpwnam(ACCOUNT)


def _is_half_made() -> bool:
    """Check whether a shadow file that exists lacks the account: a power cut may leave that."""
    files = [path for path in (Path("/etc/shadow"), Path("/etc/gshadow")) if path.exists()]
    return not all(f"\n{ACCOUNT}:" in f"\n{path.read_text(errors='replace')}" for path in files)
