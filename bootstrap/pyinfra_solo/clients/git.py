"""The bare repository in which commits are fetched, verified and kept between boots.

Its one writer is whoever holds the run lock, so a lock file of git's in it is always a dead run's.
GitPython starts git, and is imported here alone.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import git

from pyinfra_solo.clients import git_env as gitenv
from pyinfra_solo.errors import DataError, TrustError
from pyinfra_solo.run.settings import Ops
from pyinfra_solo.system.deadline import Deadline

GitError = git.GitCommandError
COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_PACKS = 50
_UNTRUSTED_HOST = re.compile(
    r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key is known"
)
_TORN = re.compile(
    r"object file .* is empty|loose object .* corrupt|bad object|unable to read|not our ref .* shallow|missing blob"
    r"|inflate|index-pack failed|packfile .* (cannot be accessed|is truncated|claims)|not a git repository|bad config"
    r"|fatal: bad tree|invalid sha1 pointer|does not point to a valid object|reference broken|cannot lock ref",
    re.IGNORECASE,
)


class BareRepository:
    """`repo.git` below `state`, and `repo.git.aside` while it is being made anew."""

    def __init__(self, state: Path, ops: Ops, say: Callable[[str], None]) -> None:
        self._bare = state / "repo.git"
        self._aside = state / "repo.git.aside"
        self._ops = ops
        self._say = say
        self._repo = self._opened()

    def bring(self, remote: str, ref: str, deadline: Deadline) -> str:
        """The commit of `ref` at `remote`, here and verified.

        Raises GitError when the remote gives nothing, TrustError when it is another host than the
        pinned one or when the commit is not signed as it must be, DataError for an ambiguous ref.
        """
        try:
            return self._bring(remote, ref, deadline)
        except git.GitCommandError as error:
            if _UNTRUSTED_HOST.search(str(error.stderr)):
                raise TrustError(
                    f"The host key of {shown(remote)} is not the pinned one. If it was changed on purpose, put "
                    f"the new key into {self._ops.known_hosts or 'a file named by ops.known_hosts'}."
                ) from error
            raise

    def _bring(self, remote: str, ref: str, deadline: Deadline) -> str:
        try:
            return self._brought(remote, ref, deadline)
        except git.GitCommandError as error:
            if not _TORN.search(str(error.stderr)):
                raise
            self._say(f"repo.git is torn ({reason(error)}): making it anew")
        return self._brought_anew(remote, ref, deadline)

    def _brought_anew(self, remote: str, ref: str, deadline: Deadline) -> str:
        """Into an empty repository. A broken connection looks like a torn repository, so the old one
        comes back when that gives nothing either: it may be all that the last rung has."""
        shutil.rmtree(self._aside, ignore_errors=True)
        self._bare.rename(self._aside)
        try:
            self._repo = self._anew()
            sha = self._brought(remote, ref, deadline)
        except BaseException:
            self._repo = self._opened()
            raise
        shutil.rmtree(self._aside, ignore_errors=True)
        return sha

    def _brought(self, remote: str, ref: str, deadline: Deadline) -> str:
        """The password of a URL goes by the environment: arguments are for all to see."""
        bare_remote, credentials = gitenv.without_password(remote)
        with self._repo.git.custom_environment(**credentials):
            return self._brought_by(bare_remote, ref, deadline)

    def _brought_by(self, remote: str, ref: str, deadline: Deadline) -> str:
        name, sha = self._wanted(remote, ref, deadline)
        if sha is None or not self.has(sha):
            self._fetched(remote, name, deadline)
            sha = self._git("rev_parse", "--verify", "FETCH_HEAD^{commit}")
        self.verify(sha)
        self._git("update_ref", _kept(ref), sha)
        return sha

    def _wanted(self, remote: str, ref: str, deadline: Deadline) -> tuple[str, str | None]:
        """The full name to fetch, and its commit where the remote's list tells it."""
        if COMMIT.fullmatch(ref):
            return ref, ref
        with self._bounded(deadline) as limit:
            listed = self._git(
                "ls_remote",
                "--",
                remote,
                f"refs/heads/{ref}",
                f"refs/tags/{ref}",
                f"refs/tags/{ref}^{{}}",
                **limit,
            )
        found = {name: sha for sha, name in (line.split("\t") for line in listed.splitlines())}
        if not found:
            raise git.GitCommandError("ls-remote", 2, f"there is no branch or tag {ref!r}".encode())
        if f"refs/heads/{ref}" in found and f"refs/tags/{ref}" in found:
            raise DataError(f"The ops repo has a branch and a tag {ref!r}. Rename one, or name a commit.")
        if f"refs/heads/{ref}" in found:
            return f"refs/heads/{ref}", found[f"refs/heads/{ref}"]
        return f"refs/tags/{ref}", found.get(f"refs/tags/{ref}^{{}}", found[f"refs/tags/{ref}"])

    def _fetched(self, remote: str, name: str, deadline: Deadline) -> None:
        arguments = ("--depth", "1", "--no-tags", "--force", "--no-write-commit-graph", "--", remote, name)
        with self._bounded(deadline) as limit:
            self._git("fetch", *arguments, **limit)

    def last_fetched(self, ref: str) -> str | None:
        """The commit that `ref` had when a remote last answered."""
        try:
            return self._git("rev_parse", "--verify", "--quiet", _kept(ref))
        except git.GitCommandError:
            return None

    def has(self, sha: str) -> bool:
        """The whole tree of the commit is here: what a killed fetch left is not believed."""
        try:
            self._git("rev_list", "--objects", "--no-walk", "--quiet", "--missing=error", sha)
        except git.GitCommandError:
            return False
        return True

    def verify(self, sha: str) -> None:
        """Raises TrustError unless the commit is signed as the settings ask, if they do.

        By ssh-keygen's exit status alone: for a key that is not allowed, git's text still
        begins with `Good "git" signature`. A missing list of revoked keys would be only a warning."""
        signers = self._ops.allowed_signers
        if not signers:
            return
        for path in filter(None, (signers, self._ops.revoked_signers)):
            if not path.is_file():
                raise TrustError(
                    f"{path} is named in the settings and is not there. Without it nothing is believed."
                )
        options = [f"gpg.ssh.allowedSignersFile={signers}", "gpg.format=ssh", "gpg.minTrustLevel=fully"]
        # A commit names its own kind of signature, and root's keyring is not the list of signers.
        options += [f"gpg.{kind}.program=/bin/false" for kind in ("openpgp", "x509")]
        if self._ops.revoked_signers:
            options.append(f"gpg.ssh.revocationFile={self._ops.revoked_signers}")
        try:
            self._repo.git(c=options).verify_commit(sha)
        except git.GitCommandError as error:
            raise TrustError(
                f"Commit {sha[:12]} is not signed by a key in {signers}. Sign it, or add its signer's key."
            ) from error

    def entries(self, sha: str) -> Iterator[tuple[str, str, str]]:
        """Mode, path and, for a symbolic link, target of all that the commit's tree holds."""
        for line in self._git("ls_tree", "-r", "-z", "--full-tree", sha).split("\0"):
            if line:
                about, _, path = line.partition("\t")
                mode, _, blob = about.split(" ")
                yield mode, path, self._git("cat_file", "blob", blob) if mode == "120000" else ""

    def write_tree(self, sha: str, folder: Path, index: Path) -> None:
        """The commit's files in the empty `folder`. index: a path for git's own use. Raises GitError."""
        with self._repo.git.custom_environment(
            GIT_INDEX_FILE=str(index), GIT_DIR=str(self._bare), GIT_WORK_TREE=str(folder)
        ):
            self._git("read_tree", sha)
            self._git("checkout_index", "--all", "--force")

    def tidy(self) -> None:
        """Each fetch leaves a pack: make one of many. What no ref names stays, the last good too."""
        if len(list(self._bare.glob("objects/pack/*.pack"))) > _MOST_PACKS:
            self._git("repack", "-a", "-d", "--keep-unreachable", "--quiet")

    def _git(self, command: str, *arguments: str, **options: Any) -> str:
        """GitPython's dynamic commands, whose results are text when nothing else is asked for."""
        return str(getattr(self._repo.git, command)(*arguments, **options))

    def _opened(self) -> git.Repo:
        """The bare repository, with what killed runs left in it removed."""
        if self._aside.exists():
            shutil.rmtree(self._bare, ignore_errors=True)
            self._aside.rename(self._bare)
        try:
            repo = git.Repo(self._bare)
            for lock in (*self._bare.rglob("*.lock"), *self._bare.glob("objects/pack/tmp_*")):
                lock.unlink(missing_ok=True)
            repo.git.update_environment(**gitenv.environment(self._ops.deploy_key, self._ops.known_hosts))
            repo.git.rev_parse("--git-dir")
            self._bare.chmod(0o700)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError, git.GitCommandError):
            return self._anew()
        return repo

    def _anew(self) -> git.Repo:
        """An empty repository. Everything is synced as it is written (git-config(1), core.fsync), and
        small fetches stay packs, which are written as a whole."""
        shutil.rmtree(self._bare, ignore_errors=True)
        repo = git.Repo.init(self._bare, bare=True)
        self._bare.chmod(0o700)
        with repo.config_writer() as config:
            config.set_value("core", "fsync", "all")
            config.set_value("fetch", "unpackLimit", "1")
            config.set_value("gc", "auto", "0")
        repo.git.update_environment(**gitenv.environment(self._ops.deploy_key, self._ops.known_hosts))
        return repo

    @contextmanager
    def _bounded(self, deadline: Deadline) -> Iterator[dict[str, float]]:
        """GitPython kills git and all its descendants when the time is up."""
        seconds = deadline.left()
        if seconds <= 0:
            raise git.GitCommandError("git", 124, b"no time is left for it")
        yield {"kill_after_timeout": seconds}


def _kept(ref: str) -> str:
    """By digest: git has no room for `release/2` beside `release`."""
    return f"refs/solo/{hashlib.sha256(ref.encode()).hexdigest()}"


def reason(error: git.GitCommandError) -> str:
    """git's own word, or ssh's, without the command line: it may hold a password."""
    text = re.sub(r"^\s*stderr: '|'$", "", str(error.stderr))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0].startswith("Timeout: the command"):
        return "no answer in time"
    said = [line for line in lines if re.match(r"fatal|error|ssh|.*Permission denied", line)] or lines
    return said[0][:300]


def shown(remote: str) -> str:
    """The remote without a password."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", remote)


def head(root: Path) -> str:
    """The commit of a working tree, with `+changes` when it is not as committed; of a checkout, its
    name; of a folder without git, `unknown`."""
    if COMMIT.fullmatch(root.name):
        return root.name
    try:
        repo = git.Repo(root)
        return str(repo.head.commit.hexsha) + ("+changes" if repo.is_dirty(untracked_files=True) else "")
    except (git.GitError, ValueError):
        return "unknown"
