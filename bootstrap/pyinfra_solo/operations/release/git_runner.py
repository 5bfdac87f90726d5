"""Run git for a release, within a time. Standard library only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pyinfra_solo.clients import git_env
from pyinfra_solo.clients.git_core import GitError, RunGit
from pyinfra_solo.operations.release.request import Request
from pyinfra_solo.system import processes

_MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes. The longest output is a list of all the names of a tree."""


def git_runner(
    request: Request,
    deadline: float,
    lock: int | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> RunGit:
    """Make the function that runs git until the monotonic clock reads `deadline`.

    lock: a descriptor that git inherits, so that no other run begins beside a git that outlived its own.
    meanwhile: as of `processes.run`.
    """
    keys = [Path(path) if path else None for path in (request.deploy_key, request.known_hosts)]
    own = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "HOME": os.environ.get("HOME", "/root"),
        "LC_ALL": "C",
        **git_env.environment(*keys),
    }

    def git(*words: str, seconds: float | None = None, environment: Mapping[str, str] | None = None) -> str:
        left = deadline - time.monotonic()
        given = left if seconds is None else min(seconds, left)
        try:
            done = processes.run(
                ["git", "-c", "transfer.fsckObjects=true", *words],
                timeout=given, environment={**own, **(environment or {})}, max_output=_MAX_OUTPUT,
                pass_fds=() if lock is None else (lock,), meanwhile=meanwhile,
            )  # fmt: skip
        except TimeoutError:
            raise GitError(f"no answer in {max(0.0, given):.0f} s") from None
        except OSError as error:
            raise GitError(f"git cannot be run: {error.strerror}") from error
        if done.status or done.cut:
            raise GitError(_explained(done.stderr.decode("ascii", "replace"), request))
        return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")

    return git


def _explained(stderr: str, request: Request) -> str:
    """Put before git's words what ssh does not say: which file has no key of the host."""
    if "Host key verification failed" not in stderr:
        return stderr
    pinned = (
        f"{request.known_hosts}, which known_hosts= names, does not have"
        if request.known_hosts
        else ("known_hosts= of the release names no file, so nothing pins")
    )
    return f"fatal: {pinned} the host key of the remote\n{stderr}"
