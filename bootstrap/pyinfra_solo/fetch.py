"""Station fetch: the ops repo at the wanted commit, in `checkouts/<sha>/`, believed before it is files.

A bare `repo.git` is kept between boots. Its one writer is whoever holds the run lock, so a lock file
of git's in it is always a dead run's. GitPython starts git, and is imported here alone.
"""

import compileall
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import git

from pyinfra_solo import durable, gitenv
from pyinfra_solo.errors import DataError, SourceError, TrustError
from pyinfra_solo.run import Run
from pyinfra_solo.settings import Ops
from pyinfra_solo.waiting import Deadline

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DISK = "disk"
_BUILDING = ".building-"
_UNTRUSTED_HOST = re.compile(
    r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key is known"
)
_TORN = re.compile(
    r"object file .* is empty|loose object .* corrupt|bad object|unable to read|not our ref .* shallow|missing blob"
    r"|inflate|index-pack failed|packfile .* (cannot be accessed|is truncated|claims)|not a git repository|bad config"
    r"|fatal: bad tree|invalid sha1 pointer|does not point to a valid object|reference broken",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The tree at `root`. source: the remote it came from, or `disk` when none answered."""

    root: Path
    sha: str
    ref: str
    source: str


def fetch(
    ops: Ops, stage: str, flag: str | None, state: Path, run: Run, *, good: str | None = None
) -> Checkout:
    """The commit that the stage wants now, on disk and whole.

    flag: a ref that beats the settings'. state: holds repo.git and checkouts/. good: the sha that was
    last judged ready here. Raises SourceError, TrustError, DataError.
    """
    ref = flag or ops.refs.get(stage, ops.ref)
    if not ops.remotes:
        raise SourceError("No remote is set. Put the ops repo's URL into ops.remotes in the settings.")
    store = Store(state, ops, run)
    sha, source = store.from_remotes(ref)
    if sha is None:
        sha = store.from_disk(ref, good)
    checkout = Checkout(root=store.materialise(sha), sha=sha, ref=ref, source=source)
    store.prune(keep=sha)
    run.say(f"ops at {sha[:12]}, {ref} from {source}")
    return checkout


class Store:
    """repo.git and the checkouts made from it."""

    def __init__(self, state: Path, ops: Ops, run: Run) -> None:
        self._bare = state / "repo.git"
        self._aside = state / "repo.git.aside"
        self._checkouts = state / "checkouts"
        self._ops = ops
        self._run = run
        self._problems: list[str] = []
        self._checkouts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._repo = self._opened()

    def from_remotes(self, ref: str) -> tuple[str | None, str]:
        """The commit of `ref` from the first remote that has it, verified; None when none answers."""
        for remote in self._ops.remotes:
            try:
                return self._from_remote(remote, ref), _shown(remote)
            except git.GitCommandError as error:
                text = _reason(error)
                if _UNTRUSTED_HOST.search(str(error.stderr)):
                    raise TrustError(
                        f"The host key of {_shown(remote)} is not the pinned one. If it was changed on purpose, put "
                        f"the new key into {self._ops.known_hosts or 'a file named by ops.known_hosts'}."
                    ) from error
                self._problems.append(f"{_shown(remote)}: {text}")
                self._run.say(f"{_shown(remote)} gives nothing: {text}")
        return None, _DISK

    def _from_remote(self, remote: str, ref: str) -> str:
        deadline = self._run.deadline.sooner(self._ops.within)
        try:
            return self._brought(remote, ref, deadline)
        except git.GitCommandError as error:
            if not _TORN.search(str(error.stderr)):
                raise
            self._run.say(f"repo.git is torn ({_reason(error)}): making it anew")
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
        name, sha = self._wanted(remote, ref, deadline)
        if sha is None or not self._has(sha):
            self._fetched(remote, name, deadline)
            sha = self._git("rev_parse", "--verify", "FETCH_HEAD^{commit}")
        self._verify(sha)
        self._git("update_ref", _kept(ref), sha)
        return sha

    def _wanted(self, remote: str, ref: str, deadline: Deadline) -> tuple[str, str | None]:
        """The full name to fetch, and its commit where the remote's list tells it."""
        if _COMMIT.fullmatch(ref):
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

    def from_disk(self, ref: str, good: str | None) -> str:
        """The last rung. Raises SourceError when the policy or the disk says no."""
        asked = "; ".join(self._problems)
        if self._ops.on_disk == "never":
            raise SourceError(f"No remote gave the ops repo ({asked}), and ops.on_disk is 'never'.")
        sha = good if self._ops.on_disk == "good" else self._last_fetched(ref)
        if not sha or not self._has(sha):
            raise SourceError(
                f"No remote gave the ops repo ({asked}), and no {self._ops.on_disk} commit of {ref!r} is on disk. "
                "It is tried again; see that a remote answers."
            )
        self._verify(sha)
        self._run.say(f"NO REMOTE ANSWERED: going on with {sha[:12]}, which is on disk")
        return sha

    def _last_fetched(self, ref: str) -> str | None:
        try:
            return self._git("rev_parse", "--verify", "--quiet", _kept(ref))
        except git.GitCommandError:
            return None

    def _has(self, sha: str) -> bool:
        """The whole tree of the commit is here: what a killed fetch left is not believed."""
        try:
            self._git("rev_list", "--objects", "--no-walk", "--quiet", "--missing=error", sha)
        except git.GitCommandError:
            return False
        return True

    def _verify(self, sha: str) -> None:
        """Signature by ssh-keygen's exit status alone: for a key that is not allowed, git's text still
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

    def materialise(self, sha: str) -> Path:
        """`checkouts/<sha>`, made beside it and moved into place when it is whole and synced."""
        final = self._checkouts / sha
        if durable.is_complete(final):
            return final
        durable.discard_leftovers(self._checkouts, _BUILDING)
        if final.exists():
            shutil.rmtree(final)
        building = self._checkouts / f"{_BUILDING}{sha}-{os.getpid()}"
        self._refuse_hostile(sha)
        index = self._checkouts / f"{_BUILDING}index-{os.getpid()}"
        try:
            building.mkdir(mode=0o700)
            with self._repo.git.custom_environment(
                GIT_INDEX_FILE=str(index), GIT_DIR=str(self._bare), GIT_WORK_TREE=str(building)
            ):
                self._git("read_tree", sha)
                self._git("checkout_index", "--all", "--force")
        except git.GitCommandError as error:
            raise SourceError(
                f"Commit {sha[:12]} cannot be written to {building}: {_reason(error)}. "
                f"{shutil.disk_usage(self._checkouts).free >> 20} MiB are free there."
            ) from error
        finally:
            index.unlink(missing_ok=True)
        compileall.compile_dir(building, quiet=2, maxlevels=12)
        durable.publish(building, final)
        return final

    def _refuse_hostile(self, sha: str) -> None:
        """Raises TrustError for a link that leads out of the tree, DataError for a submodule."""
        for line in self._git("ls_tree", "-r", "-z", "--full-tree", sha).split("\0"):
            if not line:
                continue
            mode, _, rest = line.partition(" ")
            blob, _, path = rest.partition(" ")[2].partition("\t")
            if mode == "160000":
                raise DataError(
                    f"The ops repo has a submodule, {path!r}, which is not fetched. Put its files into the repo."
                )
            if mode == "120000" and _leads_out(path, self._git("cat_file", "blob", blob)):
                raise TrustError(f"The ops repo's link {path!r} leads out of its tree. Remove it.")

    def _git(self, command: str, *arguments: str, **options: Any) -> str:
        """GitPython's dynamic commands, whose results are text when nothing else is asked for."""
        return str(getattr(self._repo.git, command)(*arguments, **options))

    def prune(self, keep: str) -> None:
        """All but the newest few checkouts go, never the one in use."""
        found = [path for path in self._checkouts.iterdir() if _COMMIT.fullmatch(path.name)]
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in [path for path in found if path.name != keep][max(0, self._ops.keep - 1) :]:
            shutil.rmtree(path, ignore_errors=True)

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
        except (git.InvalidGitRepositoryError, git.NoSuchPathError, git.GitCommandError):
            return self._anew()
        return repo

    def _anew(self) -> git.Repo:
        """An empty repository. Everything is synced as it is written (git-config(1), core.fsync), and
        small fetches stay packs, which are written as a whole."""
        shutil.rmtree(self._bare, ignore_errors=True)
        repo = git.Repo.init(self._bare, bare=True)
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
    return f"refs/solo/{ref}"


def _leads_out(path: str, target: str) -> bool:
    if target.startswith("/"):
        return True
    return os.path.normpath(Path(path).parent / target).split("/")[0] == ".."


def _reason(error: git.GitCommandError) -> str:
    """git's own word, or ssh's, without the command line: it may hold a password."""
    text = re.sub(r"^\s*stderr: '|'$", "", str(error.stderr))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0].startswith("Timeout: the command"):
        return "no answer in time"
    said = [line for line in lines if re.match(r"fatal|error|ssh|.*Permission denied", line)] or lines
    return said[0][:300]


def _shown(remote: str) -> str:
    """The remote without a password."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", remote)


def head(root: Path) -> str:
    """The commit of a working tree, with `+changes` when it is not as committed; of a checkout, its
    name; of a folder without git, `unknown`."""
    if _COMMIT.fullmatch(root.name):
        return root.name
    try:
        repo = git.Repo(root)
        return str(repo.head.commit.hexsha) + ("+changes" if repo.is_dirty(untracked_files=True) else "")
    except (git.GitError, ValueError):
        return "unknown"
