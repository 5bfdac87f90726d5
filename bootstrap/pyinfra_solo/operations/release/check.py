"""Check which release is current and which is wanted. Standard library only."""

from __future__ import annotations

import time

from pyinfra_solo.clients.git_core import GitError, list_refs
from pyinfra_solo.operations.release.git_runner import git_runner
from pyinfra_solo.operations.release.releases import Releases
from pyinfra_solo.operations.release.request import Request
from pyinfra_solo.system import kept
from pyinfra_solo.system.kept import Kept
from pyinfra_solo.system.text import COMMIT

SECONDS = 60
"""The most that one question to a remote may take."""


def check(request: Request) -> dict[str, str]:
    """Return the state of the releases: see ReleaseState. Starts git at most once.

    Also keeps the record of system/kept.py in step with what it finds.
    """
    releases = Releases(request.base)
    found = {"current": releases.current}
    if releases.unfinished():
        found["leftovers"] = "yes"
    if not request.ask:
        reasons = [one.reason for one in kept.read(request.kept) if one.app == request.app]
        return {**found, "kept": reasons[0]} if reasons else found
    found |= _wanted(request)
    if found.get("wanted") == found["current"]:
        kept.clear(request.app, request.kept)
    elif "problem" in found and found["current"] and request.offline == "keep":
        kept.record(Kept(request.app, found["current"], request.ref, found["problem"]), request.kept)
    return found


def _wanted(request: Request) -> dict[str, str]:
    ref = request.ref
    if COMMIT.fullmatch(ref):
        return {"wanted": ref}
    seconds = min(request.timeout, SECONDS)
    git = git_runner(request, time.monotonic() + seconds)
    # A branch wins over a tag. `^{}` is the commit of a tag with a message (git-ls-remote(1)).
    names = (f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"{ref}^{{}}", ref)
    try:
        listed = list_refs(git, request.repo, names, seconds)
    except GitError as error:
        return {"problem": str(error)[:200]}
    return next(({"wanted": listed[name]} for name in names if name in listed), {"unknown": "yes"})
