"""Run git and other programs for a release, within a time. Standard library only."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyinfra_solo.clients import git_env
from pyinfra_solo.clients.git_core import GitError, RunGit
from pyinfra_solo.operations.release.request import Request
from pyinfra_solo.system.processes import end_session


def run(
    words: Sequence[str],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    grace: float = 5.0,
) -> tuple[int, bytes, bytes]:
    """Run a program in a session of its own; return exit status, stdout and stderr.

    grace: seconds between SIGTERM and SIGKILL. Raises TimeoutError, OSError. Whatever interrupts the
    call, nothing of the session is left.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # The child's own descriptors can only append: it cannot read or change what was written before.
        writers = [
            os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_APPEND) for file in (out, err)
        ]
        try:
            process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=writers[0], stderr=writers[1],
                cwd="/", pass_fds=pass_fds, start_new_session=True, umask=0o022,
            )  # fmt: skip
        finally:
            for writer in writers:
                os.close(writer)
        try:
            status = process.wait(timeout=max(0.0, timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"no end after {timeout:.0f} s") from None
        finally:
            if process.returncode is None:
                end_session(process.pid, grace)
                process.wait()
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


def git_runner(request: Request, deadline: float, lock: int | None = None) -> RunGit:
    """Make the function that runs git until the monotonic clock reads `deadline`.

    lock: a descriptor that git inherits, so that no other run begins beside a git that outlived its own.
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
            status, out, err = run(
                ["git", "-c", "transfer.fsckObjects=true", *words],
                timeout=given, environment={**own, **(environment or {})}, pass_fds=() if lock is None else (lock,),
            )  # fmt: skip
        except TimeoutError:
            raise GitError(f"no answer in {max(0.0, given):.0f} s") from None
        except OSError as error:
            raise GitError(f"git cannot be run: {error.strerror}") from error
        if status:
            raise GitError(err.decode("ascii", "replace"))
        return out.decode("utf-8", "surrogateescape").removesuffix("\n")

    return git
