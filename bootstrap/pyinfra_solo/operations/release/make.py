"""Make the wanted release and point `current` at it. Standard library only."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pyinfra_solo.clients.git_core import GitError, IncompleteError, Repository
from pyinfra_solo.errors import ConvergeError, DataError, SoloError
from pyinfra_solo.operations.release.environment import Builder, make_scripts_movable
from pyinfra_solo.operations.release.git_runner import git_runner
from pyinfra_solo.operations.release.releases import MARKER, Releases, locked
from pyinfra_solo.operations.release.request import Request
from pyinfra_solo.operations.release.takeover import link_out
from pyinfra_solo.system import durable, kept, processes
from pyinfra_solo.system.kept import Kept
from pyinfra_solo.system.text import without_password

_MOST_PACKS = 40
_LOCK = 60.0


class RemoteError(GitError):
    """The remote does not give the commit."""


class Maker:
    """Makes one release, until the monotonic clock reads `deadline`."""

    def __init__(self, request: Request, deadline: float, log: Callable[[str], None]) -> None:
        self._request, self._deadline, self._log = request, deadline, log
        self._releases = Releases(request.base)
        self._id = request.sha[:12]
        self._remote = without_password(request.repo)
        self._tree = self._releases.folder / f"{durable.BUILDING}{self._id}-{os.getpid()}"

    def make(self) -> None:
        """Make `current` the release of the wanted commit, or record why another is kept.

        Raises SoloError, OSError.
        """
        sha = self._request.sha
        self._releases.make_folders(_owner(self._request.user))
        until = min(self._deadline, time.monotonic() + _LOCK)
        with locked(self._request.base / ".lock", until) as lock:
            for folder in (self._request.base, self._releases.folder):
                durable.remove_unfinished(folder)
            found = self._releases.commit(self._releases.of(sha))
            if found and found != sha:
                raise DataError(
                    f"{self._id} is the release of another commit, {found}. Make one more commit."
                )
            if not found:
                try:
                    self._write_tree(lock)
                except RemoteError as error:
                    self._keep(str(error))
                    return
                self._build()
            if self._releases.switch(sha):
                self._log(f"current is {self._id}")
            self._releases.prune(self._request.keep)
        kept.clear(self._request.app, self._request.kept)

    def _keep(self, reason: str) -> None:
        """Record that the current release stays. Raises SoloError when there is none, or by `offline`."""
        request, current = self._request, self._releases.current
        shutil.rmtree(self._tree, ignore_errors=True)
        if request.offline != "keep" or not current or is_full(request.base):
            stays = f"The release {current[:12]} stays" if current else "There is no release"
            raise ConvergeError(
                f"{self._id} ({request.ref}) cannot be fetched: {reason}. {stays}. "
                f"Check that this machine can reach and read {self._remote}."
            )
        record = Kept(request.app, current, request.sha, reason)
        kept.record(record, request.kept)
        self._log(str(record).removeprefix(f"{request.app}: "))

    def _write_tree(self, lock: int) -> None:
        """Fetch the commit and write its files.

        Raises RemoteError, DataError when the remote lacks the commit, GitError.
        """
        git = git_runner(self._request, self._deadline, lock)
        repository = Repository(self._request.base / "repo.git", git, self._log)
        if repository.packs() > _MOST_PACKS:  # each fetch leaves one; cheaper than collecting garbage at boot
            repository.create()
        try:
            repository.repaired(lambda: self._fetch_and_write(repository))
        except IncompleteError as error:
            raise DataError(
                f"the commit {self._request.sha} is not in {self._remote}. Push it, or name another."
            ) from error
        self._log(f"has the tree of {self._id}")

    def _fetch_and_write(self, repository: Repository) -> None:
        sha = self._request.sha
        if not repository.has(sha):
            try:
                self._fetch(repository)
            except GitError as error:
                raise RemoteError(error.stderr) from error
            repository.check_complete(sha)
        shutil.rmtree(self._tree, ignore_errors=True)
        self._tree.mkdir(mode=0o755)
        index = self._tree.with_name(f"{self._tree.name}-index")
        repository.write_tree(sha, self._tree, index)
        index.unlink(missing_ok=True)

    def _fetch(self, repository: Repository) -> None:
        """Fetch the commit, or all refs: a server may refuse a commit that is no tip.

        See git-config(1), uploadpack.allowReachableSHA1InWant. Raises GitError.
        """
        try:
            repository.fetch_refs(self._request.repo, self._request.sha)
        except GitError:
            if time.monotonic() >= self._deadline:
                raise
            refs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            repository.fetch_refs(self._request.repo, *refs, whole=True)

    def _build(self) -> None:
        self._refuse_hostile()
        request, tree = self._request, self._tree
        if request.requirements:
            self._make_environment()
            self._log("has its environment")
        # The app may not write here. By the system's python in isolated mode: it parses, and runs nothing.
        words = [request.python, "-I", "-S", "-m", "compileall", "-qq", "-j", "0", str(tree)]
        processes.run(words, timeout=self._deadline - time.monotonic(), umask=0o022)
        self._releases.publish(tree, request.sha)
        self._log(f"has built {self._id}")

    def _refuse_hostile(self) -> None:
        if any(os.path.lexists(self._tree / name) for name in (".venv", MARKER)):
            raise DataError(f"the tree brings a .venv or a {MARKER} of its own. Remove it and commit.")
        outside = link_out(self._tree)
        if outside:
            raise DataError(f"the symlink {outside} points outside of the release. Remove it and commit.")

    def _make_environment(self) -> None:
        request, tree = self._request, self._tree
        if not (tree / request.requirements).is_file():
            raise DataError(
                f"there is no {request.requirements} at {self._id}. "
                "Commit one, made with `uv pip compile --generate-hashes`."
            )
        scratch = tree.with_name(f"{tree.name}-scratch")
        try:
            Builder(request, tree, scratch, self._deadline, self._log).build()
        except (SoloError, TimeoutError) as error:
            raise ConvergeError(
                f"the environment that {request.requirements} asks for cannot be made: {error}"
            ) from error
        make_scripts_movable(tree / ".venv", str(tree), str(self._releases.of(request.sha)))


def _owner(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise DataError(f"there is no user {user}. Create it before the release.") from None


def is_full(folder: Path) -> bool:
    """Check whether the disk of `folder` is full: the tools' own words for it are many."""
    while not folder.exists():
        folder = folder.parent
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize < 1 << 20
