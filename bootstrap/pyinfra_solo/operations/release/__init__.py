"""Releases of an application: `/srv/<app>/releases/<id>`, and `current`, which names one of them.

A release is a commit's tree with the virtual environment that its lock file asks for. It is built
beside the others, synced, marked complete, renamed, and only then is `current` moved, by a rename.
Killed anywhere, or without power, `current` names a complete release, and the next run begins anew.
"""

import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyinfra import host, logger
from pyinfra.api import FactBase, StringCommand, operation

from pyinfra_solo.clients import git_env as gitenv
from pyinfra_solo.errors import DataError
from pyinfra_solo.operations import script

WHEELS = "/opt/pyinfra-solo/wheels"
"""Wheels that the image brings: what is there needs no index."""

_APP = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./+-]{0,200}", re.ASCII)
_LOCK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)


class ReleaseState(FactBase[dict[str, str]]):
    """current: the full commit of the complete release that `current` names, or nothing.

    leftovers: "yes" when a killed run left something. With a repo also one of: wanted, the commit
    that the ref stands for; unknown, "yes" when there is no such ref; problem, why git did not answer.
    """

    default = dict

    @staticmethod
    def blank(ref: str = "", **_asked: Any) -> dict[str, str]:
        """On a machine with nothing on it, for a plan that asks no remote either."""
        return {"wanted": f"<the commit of {ref}>"}

    def command(
        self,
        base: str,
        repo: str = "",
        ref: str = "",
        timeout: int = 60,
        environment: Mapping[str, str] | None = None,
    ) -> StringCommand:
        return script.run("release", "look", base, repo, ref, str(timeout), environment=environment)

    def process(self, output: list[str]) -> dict[str, str]:
        return script.pairs(output)


@operation()
def _release(
    base: str,
    repo: str,
    ref: str,
    timeout: int,
    environment: Mapping[str, str],
    words: list[str],
    keep_offline: bool,
) -> Generator[StringCommand, None, None]:
    state = host.get_fact(
        ReleaseState, base=base, repo=repo, ref=ref, timeout=min(timeout, 60), environment=environment
    )
    current, wanted, app = state.get("current", ""), state.get("wanted", ""), Path(base).name
    if state.get("unknown"):
        yield script.failure(f"{app}: {_shown(repo)} has no branch or tag {ref!r}. Push it, or name another.")
    elif not wanted and current and keep_offline:
        logger.warning(
            f"{host.print_prefix}{app} stays at {current[:12]}: git did not answer ({state.get('problem')})"
        )
    elif not wanted:
        yield script.failure(
            f"{app}: {_shown(repo)} did not answer ({state.get('problem')}). Can this machine reach it, and read it?"
        )
    elif wanted == current and not state.get("leftovers"):
        host.noop(f"{app} is at {current[:12]}")
    else:
        yield script.run(
            "release", "apply", base, repo, ref, str(timeout), wanted, *words, environment=environment
        )


def release(
    *,
    name: str,
    app: str,
    repo: str,
    ref: str = "main",
    user: str,
    keep: int = 3,
    requirements: str | None = "requirements.lock",
    deploy_key: str | None = None,
    known_hosts: str | None = None,
    python: str = "/usr/bin/python3",
    root: str = "/srv",
    wheels: str = WHEELS,
    timeout: int = 300,
    offline: str = "keep",
    build: bool = False,
    **arguments: Any,
) -> Any:
    """`<root>/<app>/current` is a complete release of `ref`.

    ref: a branch, a tag (a branch wins over a tag of its name), or a whole commit id, which is not
    looked up. user: owner of `shared`, all that the app may write. keep: releases to keep, besides
    the current and the previous one. requirements: the lock file in the tree, with hashes; None for
    no environment. deploy_key, known_hosts: files on the machine. timeout: seconds for all of it.
    offline: when git does not answer, "keep" the complete release that is there, or "fail".
    build: allow packages without a wheel; their authors' code then runs as root.
    Raises DataError at once for a value that cannot be meant.
    """
    _check(app, repo, ref, keep, requirements, offline)
    environment = gitenv.environment(
        Path(deploy_key) if deploy_key else None, Path(known_hosts) if known_hosts else None
    )
    words = [str(keep), requirements or "", user, python, wheels, offline, "yes" if build else "no"]
    return _release(
        name=name,
        base=f"{root}/{app}",
        repo=repo,
        ref=ref,
        timeout=timeout,
        environment=environment,
        words=words,
        keep_offline=offline == "keep",
        **arguments,
    )


def _check(app: str, repo: str, ref: str, keep: int, requirements: str | None, offline: str) -> None:
    if not _APP.fullmatch(app):
        raise DataError(f"The app {app[:40]!r} is not a name: use a-z, then a-z, 0-9, _ or -, 63 at most.")
    if not repo or repo.startswith("-") or not repo.isprintable():
        raise DataError(f"The app {app!r} has no usable repository. Give a URL or a path.")
    parts = urlsplit(repo) if "://" in repo else None
    if parts and (parts.password or (parts.username and parts.scheme in ("http", "https"))):
        raise DataError(
            f"The repository of {app!r} has a password or a token in its URL, which `ps` shows. Use deploy_key."
        )
    if not _REF.fullmatch(ref) or ".." in ref:
        raise DataError(f"The ref {ref[:40]!r} of {app!r} is not a branch, a tag or a commit id.")
    if requirements is not None and not _LOCK.fullmatch(requirements):
        raise DataError(f"The lock file {requirements!r} of {app!r} is not a path inside its tree.")
    if keep < 1:
        raise DataError(f"{app!r} keeps {keep} releases. Keep 1 at least.")
    if offline not in ("keep", "fail"):
        raise DataError(f"offline={offline!r} of {app!r} is neither 'keep' nor 'fail'.")


def _shown(repo: str) -> str:
    """The repository without the user part of its URL: a token may stand there."""
    parts = urlsplit(repo) if "://" in repo else None
    return repo.replace(f"{parts.username}@", "", 1) if parts and parts.username else repo
