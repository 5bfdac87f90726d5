"""pyinfra's own way on this machine, and ours, side by side: hosts that are asked and told the same.

`stock` is pyinfra's own inventory and its connector @local; `ours` is what a converge uses.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage

from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.executor.host import local_state
from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native import registry as known
from tests.support.machine import REPOSITORY
from tests.support.pyinfra_api import Played, within

if TYPE_CHECKING:
    from pyinfra.api import Host, State

FEW = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""The same examples in every run: an answer of pyinfra's own way costs a shell."""


def our_state(*, native: bool) -> State:
    state = local_state(REPOSITORY, {})
    machine(state).native = native
    return state


def machine(state: State) -> LocalConnector:
    connector = next(iter(state.inventory)).connector
    assert isinstance(connector, LocalConnector)
    return connector


class Asked:
    """Facts asked both ways; how many had an answer here."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.count: Counter[str] = Counter()

    def same(self, fact: type[Any], *, but: tuple[str, ...] = (), **asked: Any) -> Any:
        """What is said, when it is the same; `but` are parts that may differ."""
        answer = known.answer_to(fact)
        assert answer, f"{fact.__name__} is not known"
        ours = answer(**asked)
        self.count["asked"] += 1
        if ours is UNKNOWN:
            return UNKNOWN
        self.count["answered"] += 1
        self.count[f"{fact.__name__}: {'something' if ours else ours}"] += 1
        theirs = self._host.get_fact(fact, **asked)
        assert without(ours, but) == without(theirs, but), f"{fact.__name__} of {asked}"
        assert type(ours) is type(theirs)
        return ours

    def share(self) -> float:
        return self.count["answered"] / self.count["asked"]


def without(value: Any, keys: tuple[str, ...]) -> Any:
    """A fact's value, without these parts of it."""
    return (
        {key: inner for key, inner in value.items() if key not in keys} if isinstance(value, dict) else value
    )


OLD = 1_000_000_000 * 10**9
"""Every mtime of a tree, so that what was written or touched shows."""


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """What `root` holds: kind and mode, owner, names, contents or target, attributes, whether files were touched."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted([root, *root.rglob("*")]):
        about = path.lstat()
        content: Any = (
            path.readlink()
            if path.is_symlink()
            else path.read_bytes()
            if stat.S_ISREG(about.st_mode)
            else None
        )
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        names = about.st_nlink if not path.is_dir() else None
        touched = about.st_mtime_ns != OLD if stat.S_ISREG(about.st_mode) else None
        found[str(path.relative_to(root))] = (
            oct(about.st_mode),
            about.st_uid,
            about.st_gid,
            names,
            content,
            attributes,
            touched,
        )
    return found


def play_in(state: State, declare: Callable[[], Any]) -> Played:
    """As `played.play`, in a state of either way; an exception that ends it is named in `failed`."""
    made, failed, text = [], "", []
    with within(state) as host:
        state.set_stage(StateStage.Prepare)
        declare()
        state.set_stage(StateStage.Execute)
        state.is_executing = True
        ours = host.connector if isinstance(host.connector, LocalConnector) else None
        if ours:
            ours.puts.waits = True
        for one in host.op_hash_order:
            meta = state.ops[host][one].operation_meta
            name = ", ".join(state.get_op_meta(one).names)
            try:
                well = run_host_op(state, host, one)
                if ours:
                    ours.puts.appear()
            except Exception as error:  # noqa: BLE001 - whichever it is, both ways should agree
                failed = f"{name}: {type(error).__name__}"
                break
            text += [*meta.stdout_lines, *meta.stderr_lines]
            if not well:
                failed = name
                break
            if meta.did_change():
                made.append(name)
    return Played(tuple(made), failed, "\n".join(text))


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The extended attribute of an access control list: (tag, permissions, id) each (linux/posix_acl_xattr.h)."""
    return (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + bits.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, bits, who in entries
    )


NOBODY_ID = 0xFFFFFFFF
ACL_FOR_NOBODY = acl(
    (1, 7, NOBODY_ID), (2, 7, 65534), (4, 5, NOBODY_ID), (16, 7, NOBODY_ID), (32, 0, NOBODY_ID)
)
"""rwx for its owner and for the account 65534, r-x for its group, nothing for others; mask rwx."""


def with_flag(flag: str, path: Path) -> Callable[[], object]:
    """Set a file's flag, such as `+i` (chattr(1)); call what is returned to take it away. Where the file system
    keeps none, the test is skipped."""
    if subprocess.run(["chattr", f"+{flag}", path], check=False).returncode:
        pytest.skip(f"no flag {flag} can be set on {path}")
    return partial(subprocess.run, ["chattr", f"-{flag}", path], check=True)
