"""The ops repo's bare repository: commits are fetched from remotes, verified, and kept between boots.

GitPython runs git here, and is imported in this module alone.
"""

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import git

from pyinfra_solo.clients import git_env
from pyinfra_solo.clients.git_core import GitError as GitError
from pyinfra_solo.clients.git_core import Repository, list_refs
from pyinfra_solo.errors import DataError, TrustError
from pyinfra_solo.paths import OPS_MARKER
from pyinfra_solo.system.deadline import Deadline
from pyinfra_solo.system.text import COMMIT, one_line, without_password

_MARKER_SIZE = 4096
"""Most bytes of OPS_MARKER."""
_MOST_PACKS = 50
_UNTRUSTED_HOST = re.compile(
    r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key is known"
)
_NO_SUCH_REF = re.compile(r"not our ref|unadvertised object|couldn't find remote ref")


class NoSuchRefError(GitError):
    """A remote has answered, and does not have the wanted ref."""


class BareRepository(Repository):
    """`repo.git` below `state`.

    deploy_key, known_hosts: files for ssh. allowed_signers, revoked_signers: ssh-keygen(1), ALLOWED
    SIGNERS; without the first no signature is needed. name: the one that each commit's ops.toml
    must hold; None: any. log: takes a line for the operator.
    """

    def __init__(
        self,
        state: Path,
        log: Callable[[str], None],
        *,
        deploy_key: Path | None = None,
        known_hosts: Path | None = None,
        allowed_signers: Path | None = None,
        revoked_signers: Path | None = None,
        name: str | None = None,
    ) -> None:
        self._environment = git_env.environment(deploy_key, known_hosts)
        self._known_hosts, self._name = known_hosts, name
        self._allowed_signers, self._revoked_signers = allowed_signers, revoked_signers
        super().__init__(state / "repo.git", self._run_git, log)

    def fetch(self, remote: str, ref: str, deadline: Deadline) -> str:
        """Fetch and verify the commit of `ref` at `remote`, and return it.

        Raises GitError when the remote does not give it, NoSuchRefError when it answers and does not have
        it, TrustError when the remote's host key is not the pinned one or for `verify`, DataError for an
        ambiguous ref.
        """
        try:
            return self.repaired(lambda: self._fetch(remote, ref, deadline))
        except GitError as error:
            if _UNTRUSTED_HOST.search(error.stderr):
                raise TrustError(
                    _untrusted(without_password(remote), self._known_hosts, error.stderr)
                ) from error
            if _NO_SUCH_REF.search(error.stderr):
                raise NoSuchRefError(error.stderr) from error
            raise

    def _fetch(self, remote: str, ref: str, deadline: Deadline) -> str:
        """Give git the URL without its password: any account can read arguments, not the environment."""
        url, credentials = git_env.split_credentials(remote)
        name, sha = self._wanted(url, credentials, ref, deadline)
        if sha is None or not self.has(sha):
            with self.quarantine():
                self.fetch_refs(url, name, seconds=deadline.left(), environment=credentials)
                sha = self.git("rev-parse", "--verify", "FETCH_HEAD^{commit}")
                self.verify(sha)
        else:
            self.verify(sha)
        self.git("update-ref", _own_ref(ref), sha)
        return sha

    def _wanted(
        self, url: str, credentials: Mapping[str, str], ref: str, deadline: Deadline
    ) -> tuple[str, str | None]:
        """Return the full name to fetch, and its commit where the remote lists it."""
        if COMMIT.fullmatch(ref):
            return ref, ref
        branch, tag = f"refs/heads/{ref}", f"refs/tags/{ref}"
        names = (branch, tag, f"{tag}^{{}}")
        found = list_refs(self.git, url, names, deadline.left(), credentials)
        if branch in found and tag in found:
            raise DataError(f"The ops repo has a branch and a tag {ref!r}. Rename one, or name a commit.")
        if branch in found:
            return branch, found[branch]
        if tag in found:
            return tag, found.get(f"{tag}^{{}}", found[tag])
        raise NoSuchRefError(f"there is no branch or tag {ref!r}")

    def last_fetched(self, ref: str) -> str | None:
        """Return the commit that `ref` had when a remote last answered."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", _own_ref(ref))
        except GitError:
            return None

    def verify(self, sha: str) -> None:
        """Check the commit's signature and the name of its ops repo, as the settings ask. Raises TrustError."""
        self._verify_signature(sha)
        if self._name is not None and (found := self._name_in(sha)) != self._name:
            raise TrustError(
                f"Commit {sha[:12]} is of the ops repo {str(found)[:64]!r}, and the settings ask for ops.name = {self._name!r}. "
                f"Correct ops.remotes or ops.name, or the name in {OPS_MARKER} of the ops repo."
            )

    def _name_in(self, sha: str) -> object:
        """Read the name of the commit's ops repo, before any of it is a file. Raises TrustError without one."""
        entry = self.git("ls-tree", "-l", "-z", "--full-tree", sha, "--", OPS_MARKER).rstrip("\0")
        mode, _, blob, size = entry.partition("\t")[0].split() or ("", "", "", "")
        problem = "there is none" if not mode else f"it is no regular file of {_MARKER_SIZE} bytes at most"
        if mode in ("100644", "100755") and int(size) <= _MARKER_SIZE:
            try:
                return tomllib.loads(self.git("cat-file", "blob", blob))["name"]
            except KeyError:
                problem = "it has no name"
            except (ValueError, RecursionError) as error:
                problem = one_line(str(error))
        raise TrustError(
            f"Commit {sha[:12]} does not say which ops repo it is of, in {OPS_MARKER}: {problem}. "
            f'Commit one with the line: name = "{self._name}".'
        )

    def _verify_signature(self, sha: str) -> None:
        """Check the commit's signature, if the settings ask for one. Raises TrustError.

        Only ssh-keygen's exit status counts: for a key that is not allowed, git's text still begins
        with `Good "git" signature`. For a missing list of revoked keys git would only warn.
        """
        signers = self._allowed_signers
        if not signers:
            return
        for path in filter(None, (signers, self._revoked_signers)):
            if not path.is_file():
                raise TrustError(f"{path} is named in the settings and does not exist. Restore it.")
        settings = [f"gpg.ssh.allowedSignersFile={signers}", "gpg.format=ssh", "gpg.minTrustLevel=fully"]
        # A commit names its own kind of signature, and root's keyring is not the list of signers.
        settings += [f"gpg.{kind}.program=/bin/false" for kind in ("openpgp", "x509")]
        if self._revoked_signers:
            settings.append(f"gpg.ssh.revocationFile={self._revoked_signers}")
        options = [word for setting in settings for word in ("-c", setting)]
        try:
            self.git(*options, "verify-commit", sha)
        except GitError as error:
            raise TrustError(
                f"Commit {sha[:12]} is not signed by a key in {signers}. Sign it, or add its signer's key."
            ) from error

    def tidy(self) -> None:
        """Make one pack of many. What no ref names stays: the last good commit may be among it."""
        if self.packs() > _MOST_PACKS:
            self.git("repack", "-a", "-d", "--keep-unreachable", "--quiet")

    def _run_git(
        self, *words: str, seconds: float | None = None, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run git (see RunGit). After `seconds` GitPython ends it and all its descendants.

        core.fsync: this repository may hold the only copy of the last good commit.
        """
        _drop_git_variables()
        if seconds is not None and seconds <= 0:
            raise GitError("no time is left to ask the remote")
        try:
            output = git.Git("/").execute(
                ["git", "-c", "core.fsync=all", *words],
                env={**self._environment, **(environment or {})},
                kill_after_timeout=seconds,
            )
        except git.GitCommandError as error:
            text = re.sub(r"^\s*stderr: '|'$", "", str(error.stderr))
            raise GitError("no answer in time" if "Timeout: the command" in text else text) from error
        return str(output)


def _untrusted(remote: str, pinned: Path | None, stderr: str) -> str:
    """Say why ssh does not trust the host of `remote`, and what to do."""
    add = "ssh-keyscan(1) prints it. Compare it with what the host's owner publishes"
    if pinned is None:
        return (
            f"No host key is pinned for {remote}: ops.known_hosts is not set. Put the host's key into a file, "
            f"and name the file there. {add}."
        )
    if not pinned.is_file():
        return f"The file {pinned}, which ops.known_hosts names, is not there. Put the host key of {remote} into it. {add}."
    if "IDENTIFICATION HAS CHANGED" in stderr:
        return f"The host key of {remote} is not the pinned one. If it was changed on purpose, put the new key into {pinned}."
    return f"{pinned}, which ops.known_hosts names, has no key for the host of {remote}. Add it. {add}."


def _drop_git_variables() -> None:
    """Remove GIT_* from this process's environment, of which GitPython gives git a copy.

    git(1): GIT_CONFIG_COUNT alone could name other signers, GIT_DIR another repository.
    """
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[name]


def _own_ref(ref: str) -> str:
    """Name a ref by digest: git has no room for `release/2` beside `release`."""
    return f"refs/solo/{hashlib.sha256(ref.encode()).hexdigest()}"


def reason(error: GitError) -> str:
    """Return git's reason, or ssh's, in one line."""
    return str(error)


def head(root: Path) -> str:
    """Return the commit of a working tree, with `+changes` when it is not as committed.

    For a checkout: its name. For a folder without git: `unknown`.
    """
    if COMMIT.fullmatch(root.name):
        return root.name
    _drop_git_variables()
    try:
        with git.Repo(root) as repo:  # the end of `with` ends git's processes
            return str(repo.head.commit.hexsha) + ("+changes" if repo.is_dirty(untracked_files=True) else "")
    except (git.GitError, ValueError):
        return "unknown"
