"""Station fetch: fetch the wanted commit, verify its signature, check it out to `checkouts/<sha>/`."""

import compileall
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo.clients.git import BareRepository, GitError, NoSuchRefError, reason
from pyinfra_solo.errors import DataError, SourceError, TrustError
from pyinfra_solo.run.run import Progress
from pyinfra_solo.run.settings import Ops
from pyinfra_solo.system import durable
from pyinfra_solo.system.text import COMMIT, without_password

_LINK, _SUBMODULE = "120000", "160000"


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The tree at `root`. source: the remote it came from, or `disk` when none gave it."""

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
        allowed_signers=ops.allowed_signers, revoked_signers=ops.revoked_signers, name=ops.name,
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
    """Return the commit and its source: the first remote that gives it in its time, else the disk."""
    problems = []
    why, advice = "NO REMOTE ANSWERED", "Check that a remote answers."
    for remote in ops.remotes:
        try:
            return bare.fetch(remote, ref, progress.deadline.sooner(ops.timeout)), without_password(remote)
        except GitError as error:
            problems.append(f"{without_password(remote)}: {reason(error)}")
            progress.say(f"{without_password(remote)}: fetch failed: {reason(error)}")
            if isinstance(error, NoSuchRefError):
                why = f"NO REMOTE THAT ANSWERED HAS {ref!r}"
                advice = f"Create {ref!r} there, or correct the ref in the settings."
    sha = _on_disk(bare, ops, ref, good)
    if sha is None:
        there = (
            "ops.fallback is 'none'"
            if ops.fallback == "none"
            else f"no {ops.fallback} commit of {ref!r} is on disk"
        )
        raise SourceError(f"No remote gave the ops repo ({'; '.join(problems)}), and {there}. {advice}")
    bare.verify(sha)
    progress.say(f"{why}: using {sha[:12]} from disk")
    return sha, "disk"


def _on_disk(bare: BareRepository, ops: Ops, ref: str, good: str | None) -> str | None:
    """Return the commit on disk that `ops.fallback` allows, if it is complete."""
    allowed = {"newest": bare.last_fetched(ref), "last-good": good, "none": None}[ops.fallback]
    return allowed if allowed and bare.has(allowed) else None


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
    """Refuse what only the files show: TrustError for links that lead out together, DataError for a loop."""
    root = tree.resolve()
    for folder, folders, files in os.walk(tree):
        for path in (Path(folder, name) for name in sorted((*folders, *files))):
            if not path.is_symlink():
                continue
            name = str(path.relative_to(tree))
            if not Path(os.path.realpath(path)).is_relative_to(root):
                raise TrustError(f"The ops repo's link {name!r} leads out of its tree. Remove it.")
            try:
                path.stat()
            except OSError as error:
                if error.errno == errno.ELOOP:  # path_resolution(7): also a chain of more than 40 links
                    raise DataError(f"The ops repo's link {name!r} is part of a loop. Remove it.") from error


def _prune(checkouts: Path, used: str, keep: int) -> None:
    """Remove all but the newest `keep` checkouts, never the one in use."""
    found = [path for path in checkouts.iterdir() if COMMIT.fullmatch(path.name) and path.name != used]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[max(0, keep - 1) :]:
        durable.discard(path)
