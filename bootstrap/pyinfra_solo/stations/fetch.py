"""Station fetch: fetch the wanted commit, verify its signature, check it out to `checkouts/<sha>/`."""

import compileall
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo.clients.git import BareRepository, GitError, reason
from pyinfra_solo.errors import DataError, SourceError, TrustError
from pyinfra_solo.run.run import Progress
from pyinfra_solo.run.settings import Ops
from pyinfra_solo.system import durable
from pyinfra_solo.system.text import COMMIT, without_password

_LINK, _SUBMODULE = "120000", "160000"


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The tree at `root`. source: the remote it came from, or `disk` when none answered."""

    root: Path
    sha: str
    ref: str
    source: str


def fetch(
    ops: Ops,
    stage: str,
    flag: str | None,
    state: Path,
    progress: Progress,
    *,
    good: str | None = None,
    tidy: bool = True,
) -> Checkout:
    """Put the commit that the stage wants now on disk, complete and verified.

    flag: a ref instead of the settings'. state: the folder of repo.git and checkouts/. good: the commit
    that was last judged ready here. tidy: remove old checkouts. Raises SourceError, TrustError, DataError.
    """
    ref = flag or ops.refs.get(stage, ops.ref)
    if not ops.remotes:
        raise SourceError("No remote is set. Put the ops repo's URL into ops.remotes in the settings.")
    checkouts = state / "checkouts"
    checkouts.mkdir(mode=0o700, parents=True, exist_ok=True)
    bare = BareRepository(
        state, progress.say, deploy_key=ops.deploy_key, known_hosts=ops.known_hosts,
        allowed_signers=ops.allowed_signers, revoked_signers=ops.revoked_signers,
    )  # fmt: skip
    sha, source = _from_remotes_or_disk(bare, ops, ref, good, progress)
    checkout = Checkout(root=_check_out(bare, sha, checkouts), sha=sha, ref=ref, source=source)
    if tidy:
        _prune(checkouts, sha, ops.keep)
        bare.tidy()
    progress.say(f"ops at {sha[:12]}, {ref} from {source}")
    return checkout


def _from_remotes_or_disk(
    bare: BareRepository, ops: Ops, ref: str, good: str | None, progress: Progress
) -> tuple[str, str]:
    """Return the commit and its source: the first remote that answers in its time, else the disk."""
    problems = []
    for remote in ops.remotes:
        try:
            return bare.fetch(remote, ref, progress.deadline.sooner(ops.timeout)), without_password(remote)
        except GitError as error:
            problems.append(f"{without_password(remote)}: {reason(error)}")
            progress.say(f"{without_password(remote)}: fetch failed: {reason(error)}")
    return _from_disk(bare, ops, ref, good, "; ".join(problems), progress), "disk"


def _from_disk(
    bare: BareRepository, ops: Ops, ref: str, good: str | None, problems: str, progress: Progress
) -> str:
    """Return the commit on disk that `ops.fallback` allows. Raises SourceError without one."""
    if ops.fallback == "none":
        raise SourceError(f"No remote gave the ops repo ({problems}), and ops.fallback is 'none'.")
    sha = good if ops.fallback == "last-good" else bare.last_fetched(ref)
    if not sha or not bare.has(sha):
        raise SourceError(
            f"No remote gave the ops repo ({problems}), and no {ops.fallback} commit of {ref!r} is on disk. "
            "Check that a remote answers."
        )
    bare.verify(sha)
    progress.say(f"NO REMOTE ANSWERED: using {sha[:12]} from disk")
    return sha


def _check_out(bare: BareRepository, sha: str, checkouts: Path) -> Path:
    """Write `checkouts/<sha>` beside its place, and rename it when it is complete and synced."""
    final = checkouts / sha
    if durable.is_complete(final):
        return final
    durable.remove_unfinished(checkouts)
    _refuse_hostile(bare, sha)
    building = checkouts / f"{durable.BUILDING}{sha}-{os.getpid()}"
    index = checkouts / f"{durable.BUILDING}index-{os.getpid()}"
    building.mkdir(mode=0o700)
    try:
        bare.write_tree(sha, building, index)
        _refuse_escapes(building)
        compileall.compile_dir(building, quiet=2, maxlevels=12)
        durable.publish(building, final)
    except GitError as error:
        raise SourceError(
            f"Commit {sha[:12]} cannot be written to {building}: {reason(error)}. "
            f"{shutil.disk_usage(checkouts).free >> 20} MiB are free there."
        ) from error
    finally:
        index.unlink(missing_ok=True)
        shutil.rmtree(building, ignore_errors=True)
    return final


def _refuse_hostile(bare: BareRepository, sha: str) -> None:
    """Raise TrustError for a link that leads out of the tree, DataError for a submodule."""
    for mode, path, target in bare.entries(sha):
        if mode == _SUBMODULE:
            raise DataError(
                f"The ops repo has a submodule, {path!r}, which is not fetched. Put its files into the repo."
            )
        if mode == _LINK and _leads_out(path, target):
            raise TrustError(f"The ops repo's link {path!r} leads out of its tree. Remove it.")


def _leads_out(path: str, target: str) -> bool:
    return target.startswith("/") or os.path.normpath(Path(path).parent / target).split("/")[0] == ".."


def _refuse_escapes(tree: Path) -> None:
    """Raise TrustError for a chain of links that leads out: only the files show where it ends."""
    root = tree.resolve()
    for folder, folders, files in os.walk(tree):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise TrustError(
                    f"The ops repo's link {str(path.relative_to(tree))!r} leads out of its tree. Remove it."
                )


def _prune(checkouts: Path, used: str, keep: int) -> None:
    """Remove all but the newest `keep` checkouts, never the one in use."""
    found = [path for path in checkouts.iterdir() if COMMIT.fullmatch(path.name) and path.name != used]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[max(0, keep - 1) :]:
        durable.discard(path)
