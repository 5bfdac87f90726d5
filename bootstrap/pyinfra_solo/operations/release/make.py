"""Make the wanted release and point `current` at it. Standard library only."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pyinfra_solo.clients.git_core import GitError, IncompleteError, Repository
from pyinfra_solo.errors import ConvergeError, DataError, SoloError
from pyinfra_solo.operations.release import size
from pyinfra_solo.operations.release.environment import Builder
from pyinfra_solo.operations.release.git_runner import git_runner
from pyinfra_solo.operations.release.releases import MARKER, Releases, locked
from pyinfra_solo.operations.release.request import Request
from pyinfra_solo.operations.release.takeover import DEEPEST, leads_out
from pyinfra_solo.system import durable, kept, processes
from pyinfra_solo.system.kept import Kept
from pyinfra_solo.system.text import without_password

_MOST_PACKS = 40
_LOCK = 60.0
_MEMORY = 1 << 30
"""Bytes that one process of compileall may map: a source file can be made to take any amount."""


class RemoteError(GitError):
    """The remote does not give the commit."""


class Maker:
    """Makes one release, until the monotonic clock reads `deadline`."""

    def __init__(self, request: Request, deadline: float, log: Callable[[str], None]) -> None:
        self._request, self._deadline, self._log = request, deadline, log
        self._releases = Releases(request.base)
        self._id = request.sha[:12]
        self._remote = without_password(request.repo)
        # Only root can enter it: nothing in it can be reached from outside until it is published.
        self._building = self._releases.folder / f"{durable.BUILDING}{self._id}-{os.getpid()}"
        self._tree = self._building / "tree"

    def make(self) -> None:
        """Make `current` the release of the wanted commit, or record why another is kept.

        Raises SoloError, OSError.
        """
        self._releases.make_folders(_owner(self._request.user))
        until = min(self._deadline, time.monotonic() + _LOCK)
        with locked(self._request.base / ".lock", until) as lock:
            self._remove_unfinished()
            try:
                is_made = self._make(lock)
            finally:  # a next run may need the room before it comes here
                self._remove_unfinished()
        if is_made:
            kept.clear(self._request.app, self._request.kept)

    def _make(self, lock: int) -> bool:
        """Make the release; return whether it is current, not another."""
        sha = self._request.sha
        found = self._releases.commit(self._releases.of(sha))
        if found and found != sha:
            raise DataError(f"{self._id} is the release of another commit, {found}. Make one more commit.")
        if not found:
            try:
                self._write_tree(lock)
            except RemoteError as error:
                self._keep(str(error))
                return False
            self._build()
        if self._releases.switch(sha):
            self._log(f"current is {self._id}")
        self._releases.prune(self._request.keep)
        return True

    def _remove_unfinished(self) -> None:
        for folder in (self._request.base, self._releases.folder):
            try:
                durable.remove_unfinished(folder)
            except OSError as error:  # what cannot be removed keeps no release out
                self._log(str(error))

    def _keep(self, reason: str) -> None:
        """Record that the current release stays. Raises SoloError when there is none, or by `offline`."""
        request, current = self._request, self._releases.current
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
        watch = size.watch(self._request.base, 2 * self._request.max_bytes)  # the pack, and the files
        git = git_runner(self._request, self._deadline, lock, watch)
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
        _refuse_hostile(repository, sha)
        size.check_tree(repository, sha, self._request.base, self._request.max_bytes)
        durable.remove(self._building)
        self._building.mkdir(mode=0o700)
        self._tree.mkdir(mode=0o755)
        repository.write_tree(sha, self._tree, self._building / "index")

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
        if self._request.requirements:
            self._make_environment()
            self._log("has its environment")
        self._compile()
        self._releases.publish(self._tree, self._request.sha)
        self._log(f"has built {self._id}")

    def _compile(self) -> None:
        """Write bytecode, in half of the time that is left at most: the app may not write here.

        By the system's python in isolated mode: it parses, and runs nothing.
        """
        words = [self._request.python, "-I", "-S", "-m", "compileall", "-qq", "-j", "0", str(self._tree)]
        with suppress(OSError):
            left = self._deadline - time.monotonic()
            processes.run(
                ["prlimit", f"--as={_MEMORY}", *words], timeout=left / 2, umask=0o022,
                meanwhile=size.watch(self._tree, self._request.max_bytes),
            )  # fmt: skip

    def _make_environment(self) -> None:
        request = self._request
        if not (self._tree / request.requirements).is_file():
            raise DataError(
                f"there is no {request.requirements} at {self._id}. "
                "Commit one, made with `uv pip compile --generate-hashes`."
            )
        final = self._releases.of(request.sha)
        try:
            Builder(request, self._building, final, self._deadline, self._log).build()
        except (SoloError, TimeoutError) as error:
            raise ConvergeError(
                f"the environment that {request.requirements} asks for cannot be made: {error}"
            ) from error


def _refuse_hostile(repository: Repository, sha: str) -> None:
    """Raise DataError for a commit whose files could reach out of the release, before one is written."""
    for mode, path, target in repository.entries(sha):
        if path.partition("/")[0] in (".venv", MARKER):
            raise DataError(f"the tree brings a .venv or a {MARKER} of its own. Remove it and commit.")
        if path.count("/") > DEEPEST:
            raise DataError(f"{path[:80]}... is more than {DEEPEST} folders deep. Remove it and commit.")
        if mode == "120000" and leads_out(target, path.count("/")):
            raise DataError(f"the symlink {path} points outside of the release. Remove it and commit.")


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
