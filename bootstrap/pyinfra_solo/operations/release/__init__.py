"""Releases of an application: `/srv/<app>/releases/<id>`, and `current`, which names one of them.

A release is a commit's tree with the virtual environment of its lock file. It is built beside the
others, synced, marked complete and renamed; then `current` is moved by a rename. Killed anywhere, or
without power, `current` names a complete release, and the next run starts over.

`check` runs in this process, or where the machine is; `make` always runs there (see bundle.py).
"""

import json
import re
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from pyinfra import host, logger
from pyinfra.api import FactBase, State, StringCommand, operation

from pyinfra_solo import paths
from pyinfra_solo.errors import DataError
from pyinfra_solo.native import programs
from pyinfra_solo.operations import script
from pyinfra_solo.operations.release import bundle
from pyinfra_solo.operations.release.check import check
from pyinfra_solo.operations.release.request import MAX_BYTES, Request
from pyinfra_solo.system.kept import Kept
from pyinfra_solo.system.text import COMMIT, NAME, without_password

WHEELS = "/opt/pyinfra-solo/wheels"
"""Wheels of the image: they need no index."""

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./+-]{0,200}", re.ASCII)
_LOCK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", re.ASCII)


class ReleaseState(FactBase[dict[str, str]]):
    """The state of an application's releases.

    current: the full commit of the complete release that `current` names, or ''. leftovers: "yes" when
    a killed run left something. One of: wanted, the commit of the ref; unknown, "yes" when there is no
    such ref; problem, why git did not answer. When no remote is to be asked, instead of these: kept, the
    reason for which the current release was kept, if it was.
    """

    default = dict

    @staticmethod
    def blank(request: str) -> dict[str, str]:
        """Answer for a machine with nothing on it, in a plan that asks no remote either."""
        return {"wanted": f"<the commit of {json.loads(request)['ref']}>"}

    @staticmethod
    def native(request: str) -> dict[str, str]:
        """Answer in this process: git is the one child."""
        asked = Request(**json.loads(request))
        if not asked.ask:
            return check(asked)
        if programs.before_child:
            programs.before_child()
        began = time.monotonic()
        try:
            return check(asked)
        finally:
            if programs.after_child:
                programs.after_child("git", time.monotonic() - began)

    def command(self, request: str) -> StringCommand:
        return bundle.command("check", request)

    def process(self, output: list[str]) -> dict[str, str]:
        return dict(json.loads(output[-1]))


@operation()
def _release(request: Mapping[str, Any]) -> Generator[StringCommand, None, None]:
    asked = Request(**request)
    state = host.get_fact(ReleaseState, request=asked.json())
    app, current, wanted = asked.app, state.get("current", ""), state.get("wanted", "")
    if state.get("unknown"):
        yield script.failure(
            f"{app}: {without_password(asked.repo)} has no branch or tag {asked.ref!r}. Push it, or name another."
        )
    elif not wanted and current and asked.offline == "keep":
        _report_kept(asked, current, asked.ref, state.get("problem", ""))
    elif not wanted:
        stays = f"the release {current[:12]} stays" if current else "there is no release"
        yield script.failure(
            f"{app}: {without_password(asked.repo)} did not answer ({state.get('problem')}), so the commit of {asked.ref!r} is "
            f"unknown, and {stays}. Check that this machine can reach and read it."
        )
    elif wanted == current and not state.get("leftovers"):
        host.noop(f"{app} is at {current[:12]}")
    elif not host.executing_op_hash and asked.base in _kept_in(host.state):
        host.noop(f"{app} was kept at {current[:12]}")  # the idempotence check: `offline` has decided
    else:
        yield bundle.command("apply", replace(asked, sha=wanted).json())
        if host.executing_op_hash:  # a preview runs nothing, and comes here too
            state = host.get_fact(ReleaseState, request=replace(asked, ask=False).json())
            if state["current"] != wanted:
                _report_kept(asked, state["current"], wanted, state.get("kept", ""))
                _count_as_unchanged()


_kept: WeakKeyDictionary[State, set[Path]] = WeakKeyDictionary()


def _kept_in(state: State) -> set[Path]:
    """Return the folders of the applications whose release this converge has kept."""
    return _kept.setdefault(state, set())


def _report_kept(request: Request, current: str, wanted: str, reason: str) -> None:
    if host.executing_op_hash:
        _kept_in(host.state).add(request.base)
    logger.warning(f"{host.print_prefix}{Kept(request.app, current, wanted, reason)}")


def _count_as_unchanged() -> None:
    """Complete the running operation without commands: pyinfra 3.10 counts these as changes.

    A service would be restarted for a release that stays.
    """
    running = host.nested_executing_op_hash or host.executing_op_hash
    assert running  # noqa: S101 - for mypy
    meta = host.state.get_op_data_for_host(host, running).operation_meta
    complete = meta.set_complete
    vars(meta)["set_complete"] = lambda success, _commands, *more, **named: complete(
        success, [], *more, **named
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
    offline: Literal["keep", "fail"] | None = None,
    build: bool = False,
    max_bytes: int = MAX_BYTES,
    **arguments: Any,
) -> Any:
    """Make `<root>/<app>/current` a complete release of `ref`.

    ref: a branch, a tag (a branch wins over a tag of its name), or a full commit id, for which no
    remote is asked. user: owner of `shared`, all that the app may write. keep: releases to keep, besides
    the current and the previous one. requirements: the lock file in the tree, with hashes; None for
    no environment. deploy_key, known_hosts: files on the machine. timeout: seconds for all of it.
    offline: when git does not answer, "keep" the complete release that is there, or "fail"; without it
    a full commit id fails, and a branch or tag keeps. build: allow packages without a wheel; their
    authors' code runs as the account of builds (see environment.py). max_bytes: most that the tree may
    take, and most that its environment may.
    Raises DataError at once for an invalid value.
    """
    offline = offline or ("fail" if COMMIT.fullmatch(ref) else "keep")
    _validate(app, repo, ref, keep, requirements, offline, max_bytes)
    request = Request(
        app=app, repo=repo, ref=ref, user=user, keep=keep, requirements=requirements or "",
        deploy_key=deploy_key or "", known_hosts=known_hosts or "", python=python, root=root, wheels=wheels,
        timeout=timeout, offline=offline, build=build, max_bytes=max_bytes, uv=str(paths.BAKED / "uv/bin/uv"), run=str(paths.RUN),
    )  # fmt: skip
    return _release(name=name, request=json.loads(request.json()), **arguments)


def _validate(
    app: str, repo: str, ref: str, keep: int, requirements: str | None, offline: str, max_bytes: int
) -> None:  # fmt: skip
    if not NAME.fullmatch(app):
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
    if max_bytes < 1:
        raise DataError(f"max_bytes={max_bytes} of {app!r} leaves no room for a release.")
    if offline not in ("keep", "fail"):
        raise DataError(f"offline={offline!r} of {app!r} is neither 'keep' nor 'fail'.")
