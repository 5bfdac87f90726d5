"""Keep a bare git repository that can be fetched anew: open it, repair it, write its trees to files.

Standard library only: `release` sends this module to machines that have no engine. The caller gives
the function that runs git.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from pyinfra_solo.system import durable
from pyinfra_solo.system.text import COMMIT

T = TypeVar("T")
_DAMAGED = re.compile(
    r"object file .* is empty|loose object .* corrupt|bad object|unable to read|not our ref .* shallow|missing blob"
    r"|inflate|index-pack failed|packfile .* (cannot be accessed|is truncated|claims)|not a git repository|bad config"
    r"|could not read [0-9a-f]{40}|fatal: bad tree|invalid sha1 pointer|does not point to a valid object|reference broken|cannot lock ref",
    re.IGNORECASE,
)
_SETTINGS = ("gc.auto=0", "maintenance.auto=false", "core.hooksPath=/dev/null", "fetch.unpackLimit=1")
"""unpackLimit: small fetches stay packs, which git writes as a whole."""


class GitError(Exception):
    """git failed. stderr: its output.

    The text is the reason in one line, without the command, which may hold a URL.
    """

    def __init__(self, stderr: str) -> None:
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        important = [line for line in lines if re.match(r"fatal|error|ssh|.*Permission denied", line)]
        super().__init__((important or lines or ["git gave no reason"])[0][:300])
        self.stderr = stderr


class IncompleteError(GitError):
    """A remote has given a commit, and some of it is still missing here."""


class RunGit(Protocol):
    """Run `git WORDS` and return its stdout without the last newline. Raises GitError.

    seconds: its time, if it asks a remote. environment: more variables.
    """

    def __call__(
        self, *words: str, seconds: float | None = None, environment: Mapping[str, str] | None = None
    ) -> str: ...


def list_refs(
    git: RunGit,
    remote: str,
    names: Iterable[str],
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Ask `remote` for its refs called `names`; return full names and commits. Raises GitError."""
    listed = git("ls-remote", "--", remote, *names, seconds=seconds, environment=environment)
    pairs = (line.split("\t") for line in listed.splitlines() if "\t" in line)
    return {name: sha for sha, name in pairs if COMMIT.fullmatch(sha)}


class Repository:
    """A bare repository at `path`, and at `path`.aside while it is made anew.

    Only the holder of a lock may open it, so a lock file of git in it is always a dead run's.
    """

    def __init__(self, path: Path, git: RunGit, log: Callable[[str], None]) -> None:
        self.path = path
        self._run = git
        self._log = log
        self._aside = path.with_name(f"{path.name}.aside")
        self._incoming = path / "incoming"
        self._objects: dict[str, str] = {}
        self._open()

    def git(
        self, *words: str, seconds: float | None = None, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run git on this repository. Raises GitError."""
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        where = f"--git-dir={self.path}"
        given = {**self._objects, **(environment or {})}
        return self._run(where, *settings, *words, seconds=seconds, environment=given)

    def fetch_refs(
        self,
        remote: str,
        *refs: str,
        whole: bool = False,
        seconds: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Fetch refs or commits. whole: with their history. Raises GitError."""
        depth = [] if whole else ["--depth", "1"]
        words = ["fetch", "--quiet", *depth, "--no-tags", "--force", "--", remote, *refs]
        self.git(*words, seconds=seconds, environment=environment)

    @contextmanager
    def quarantine(self) -> Iterator[None]:
        """Keep the objects that are fetched inside apart; add them at the end, unless an error is raised.

        So a commit that is refused leaves nothing here. git(1), GIT_OBJECT_DIRECTORY.
        """
        objects = self.path / "objects"
        (self._incoming / "pack").mkdir(parents=True)
        self._objects = {
            "GIT_OBJECT_DIRECTORY": str(self._incoming),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(objects),
        }
        try:
            yield
            # git finds a pack by its index, which therefore comes last.
            for path in sorted((self._incoming / "pack").iterdir(), key=lambda path: path.suffix == ".idx"):
                path.replace(objects / "pack" / path.name)
            durable.sync_folder(objects / "pack")
        finally:
            self._objects = {}
            durable.remove(self._incoming)

    def has(self, sha: str) -> bool:
        """Check that all files of the commit are here: a killed fetch leaves a part of them."""
        try:
            self.git("rev-list", "--objects", "--no-walk", "--quiet", "--missing=error", sha)
        except GitError:
            return False
        return True

    def entries(self, sha: str) -> Iterator[tuple[str, str, str]]:
        """Yield mode, path and, for a symbolic link, target of all that the commit's tree holds."""
        for line in self.git("ls-tree", "-r", "-z", "--full-tree", sha).split("\0"):
            if line:
                about, _, path = line.partition("\t")
                mode, _, blob = about.split(" ")
                yield mode, path, self.git("cat-file", "blob", blob) if mode == "120000" else ""

    def sizes(self, sha: str) -> Iterator[int]:
        """Yield the bytes of each file that the commit's tree holds. Raises GitError."""
        for line in self.git("ls-tree", "-r", "-l", "-z", "--full-tree", sha).split("\0"):
            size = line.partition("\t")[0].split()[-1:]
            yield from (int(one) for one in size if one.isdigit())

    def write_tree(self, sha: str, folder: Path, index: Path) -> None:
        """Write the commit's files into the empty `folder`. Raises GitError.

        index: a path for git's own use.
        """
        options = [f"--work-tree={folder}", "-c", "core.symlinks=true", "-c", "core.autocrlf=false"]
        self.git(*options, "read-tree", "--reset", "-u", sha, environment={"GIT_INDEX_FILE": str(index)})

    def check_complete(self, sha: str) -> None:
        """Raise IncompleteError unless all files of the commit are here."""
        if not self.has(sha):
            raise IncompleteError(f"the commit {sha} is not complete")

    def repaired(self, attempt: Callable[[], T]) -> T:
        """Call `attempt`; when git finds the repository damaged, call it on an empty one. Raises GitError.

        A broken connection can have the words of a damaged repository, so the old one comes back
        when the second call fails too: it may hold the only copy of a commit.
        """
        try:
            return attempt()
        except GitError as error:
            if not (isinstance(error, IncompleteError) or _DAMAGED.search(error.stderr)):
                raise
            self._log(f"{self.path.name} is damaged ({error}): making it anew")
        durable.remove(self._aside)
        self.path.rename(self._aside)
        try:
            self.create()
            result = attempt()
        except BaseException:
            self._open()
            raise
        durable.remove(self._aside)
        return result

    def packs(self) -> int:
        """Count the packs: each fetch leaves one."""
        return len(list(self.path.glob("objects/pack/*.pack")))

    def create(self) -> None:
        """Make the repository anew, empty. Raises GitError, OSError."""
        durable.remove(self.path)
        self._run("init", "--quiet", "--bare", "--template=", str(self.path))
        self.path.chmod(0o700)

    def _open(self) -> None:
        """Open the repository without what killed runs left in it, or make it anew."""
        if self._aside.exists():
            durable.remove(self.path)
            self._aside.rename(self.path)
        durable.remove(self._incoming)
        for left in _left_by_killed_runs(self.path):
            left.unlink(missing_ok=True)
        try:
            self.git("rev-parse", "--git-dir")
            self.path.chmod(0o700)
        except (GitError, FileNotFoundError):
            self.create()


def _left_by_killed_runs(repository: Path) -> Iterator[Path]:
    """Yield git's lock files, and its temporary files of objects.

    Path.rglob and os.walk raise RecursionError for a thousand folders below each other. Where a path is
    too long for the kernel, git can have no file.
    """
    objects, folders = str(repository / "objects"), [str(repository)]
    while folders:
        folder = folders.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.endswith(".lock") or (
                    entry.name.startswith("tmp_") and folder.startswith(objects)
                ):
                    yield Path(entry.path)
