"""Station fetch: the ops repo at the wanted commit, in `checkouts/<sha>/`, believed before it is files."""

import compileall
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo.clients.git import COMMIT, BareRepository, GitError, reason, shown
from pyinfra_solo.errors import DataError, SourceError, TrustError
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Ops
from pyinfra_solo.system import durable

_DISK = "disk"
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
    run: Run,
    *,
    good: str | None = None,
    tidy: bool = True,
) -> Checkout:
    """The commit that the stage wants now, on disk and whole.

    flag: a ref that beats the settings'. state: holds repo.git and checkouts/. good: the sha that was
    last judged ready here. tidy: old checkouts go. Raises SourceError, TrustError, DataError.
    """
    ref = flag or ops.refs.get(stage, ops.ref)
    if not ops.remotes:
        raise SourceError("No remote is set. Put the ops repo's URL into ops.remotes in the settings.")
    checkouts = state / "checkouts"
    checkouts.mkdir(mode=0o700, parents=True, exist_ok=True)
    bare = BareRepository(
        state, run.say, deploy_key=ops.deploy_key, known_hosts=ops.known_hosts,
        allowed_signers=ops.allowed_signers, revoked_signers=ops.revoked_signers,
    )  # fmt: skip
    sha, source = _ladder(bare, ops, ref, good, run)
    checkout = Checkout(root=_materialised(bare, sha, checkouts), sha=sha, ref=ref, source=source)
    if tidy:
        _prune(checkouts, sha, ops.keep)
        bare.tidy()
    run.say(f"ops at {sha[:12]}, {ref} from {source}")
    return checkout


def _ladder(bare: BareRepository, ops: Ops, ref: str, good: str | None, run: Run) -> tuple[str, str]:
    """The commit and where it came from: each remote in its own time, and at last the disk."""
    problems = []
    for remote in ops.remotes:
        try:
            return bare.fetch(remote, ref, run.deadline.sooner(ops.within)), shown(remote)
        except GitError as error:
            problems.append(f"{shown(remote)}: {reason(error)}")
            run.say(f"{shown(remote)} gives nothing: {reason(error)}")
    return _from_disk(bare, ops, ref, good, "; ".join(problems), run), _DISK


def _from_disk(bare: BareRepository, ops: Ops, ref: str, good: str | None, problems: str, run: Run) -> str:
    """The last rung. Raises SourceError when the policy or the disk says no."""
    if ops.on_disk == "never":
        raise SourceError(f"No remote gave the ops repo ({problems}), and ops.on_disk is 'never'.")
    sha = good if ops.on_disk == "good" else bare.last_fetched(ref)
    if not sha or not bare.has(sha):
        raise SourceError(
            f"No remote gave the ops repo ({problems}), and no {ops.on_disk} commit of {ref!r} is on disk. "
            "It is tried again; see that a remote answers."
        )
    bare.verify(sha)
    run.say(f"NO REMOTE ANSWERED: going on with {sha[:12]}, which is on disk")
    return sha


def _materialised(bare: BareRepository, sha: str, checkouts: Path) -> Path:
    """`checkouts/<sha>`, made beside it and moved into place when it is whole and synced."""
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
    except GitError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise SourceError(
            f"Commit {sha[:12]} cannot be written to {building}: {reason(error)}. "
            f"{shutil.disk_usage(checkouts).free >> 20} MiB are free there."
        ) from error
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    finally:
        index.unlink(missing_ok=True)
    compileall.compile_dir(building, quiet=2, maxlevels=12)
    durable.publish(building, final)
    return final


def _refuse_hostile(bare: BareRepository, sha: str) -> None:
    """Raises TrustError for a link that leads out of the tree, DataError for a submodule."""
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
    """Links of links: only the files show where a chain of them ends."""
    root = tree.resolve()
    for folder, folders, files in os.walk(tree):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise TrustError(
                    f"The ops repo's link {str(path.relative_to(tree))!r} leads out of its tree. Remove it."
                )


def _prune(checkouts: Path, used: str, keep: int) -> None:
    """All but the newest few go, never the one in use."""
    found = [path for path in checkouts.iterdir() if COMMIT.fullmatch(path.name) and path.name != used]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[max(0, keep - 1) :]:
        durable.discard(path)
