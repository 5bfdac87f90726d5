"""pyinfra's own way on this machine, and ours, side by side: hosts, and worlds for random tests."""

import os
import stat
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pyinfra.api import Host, QuoteString, State, StringCommand
from pyinfra.operations.util import files as util

from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.executor.host import local_state
from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native.registry import answer_to
from tests.support.machine import REPOSITORY
from tests.support.pyinfra_api import pyinfra_state

FEW = settings(
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""The same examples in every run: each answer of pyinfra's costs a shell."""


def our_state(*, native: bool) -> State:
    state = local_state(REPOSITORY, {}, native=native)
    assert isinstance(connector_of(state), LocalConnector)
    return state


def connector_of(state: State) -> LocalConnector:
    connector = next(iter(state.inventory)).connector
    assert isinstance(connector, LocalConnector)
    return connector


WAYS: dict[str, Callable[[], State]] = {
    "native": lambda: our_state(native=True),
    "native-off": lambda: our_state(native=False),
    "pyinfra": pyinfra_state,
}


class Comparison:
    """Asks facts both ways and counts the native answers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.count: Counter[str] = Counter()

    def same(self, fact: type, *, but: tuple[str, ...] = (), **arguments: Any) -> Any:
        """The native answer, when it is UNKNOWN or pyinfra's value; `but` are keys that may differ."""
        answer = answer_to(fact)
        assert answer, f"{fact.__name__} has no native answer"
        ours = answer(**arguments)
        self.count["asked"] += 1
        if ours is UNKNOWN:
            return UNKNOWN
        self.count["answered"] += 1
        self.count[f"{fact.__name__}: {'something' if ours else ours}"] += 1
        theirs: Any = self._host.get_fact(fact, **arguments)
        assert without(ours, but) == without(theirs, but), f"{fact.__name__} of {arguments}"
        assert type(ours) is type(theirs)
        return ours

    def share(self) -> float:
        return self.count["answered"] / self.count["asked"]


def without(value: Any, keys: tuple[str, ...]) -> Any:
    """A fact's value, without these keys."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if key not in keys}


OLD = 1_000_000_000 * 10**9
"""Nanoseconds: every mtime of a world, so that a write or touch shows."""


def age(root: Path) -> None:
    for path in (*root.rglob("*"), root):
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    """What `root` holds: mode, owner, number of names, contents or target, attributes, whether files are newer than OLD."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted([root, *root.rglob("*")]):
        about = path.lstat()
        is_file = stat.S_ISREG(about.st_mode)
        content: Any = path.readlink() if path.is_symlink() else path.read_bytes() if is_file else None
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        names = about.st_nlink if not path.is_dir() else None
        touched = about.st_mtime_ns != OLD if is_file else None
        found[str(path.relative_to(root))] = (
            oct(about.st_mode), about.st_uid, about.st_gid, names, content, attributes, touched
        )  # fmt: skip
    return found


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The extended attribute of an access control list: (tag, permissions, id) each (linux/posix_acl_xattr.h)."""
    return b"".join([struct.pack("<I", 2), *(struct.pack("<HHI", *entry) for entry in entries)])


NO_ID = 0xFFFFFFFF
ACL_FOR_NOBODY = acl((1, 7, NO_ID), (2, 7, 65534), (4, 5, NO_ID), (16, 7, NO_ID), (32, 0, NO_ID))
"""rwx for its owner and for the account 65534, r-x for its group, nothing for others; mask rwx."""


def with_flag(flag: str, path: Path) -> Callable[[], object]:
    """Set a file's flag, such as `+i` (chattr(1)), and return what removes it. Skips the test where there are none."""
    if subprocess.run(["chattr", f"+{flag}", path], check=False).returncode:
        pytest.skip(f"no flag {flag} can be set on {path}")
    return partial(subprocess.run, ["chattr", f"-{flag}", path], check=True)


# Facts: paths of all kinds.

_ODD = [" ", "'", '"', "\\", "\n", "\t", "-", "é", "\u2028", "\udce9", "$", "`", "*", "~", "%s", "{0}", "&", ";", " -> "]  # fmt: skip
STAT_OUTPUT = " group=b mode=-rwxrwxrwx atime=1 mtime=2 ctime=3 size=4 'x'"
"""A name that pyinfra could take for output of stat(1)."""
_PARTS = st.one_of(st.sampled_from("abc.X0"), st.sampled_from([*_ODD, STAT_OUTPUT]))
_PLAIN = st.text("abcXYZ019 ._-+@=,:#", min_size=1, max_size=12)
NAMES = (
    st.one_of(_PLAIN, st.lists(_PARTS, min_size=1, max_size=6).map("".join))
    .filter(lambda name: name.strip(".") != "")
    .filter(lambda name: len(os.fsencode(name)) < 200)
)
KINDS = st.sampled_from(["file", "folder", "link", "fifo", "socket", "absent"])
TARGETS = st.one_of(NAMES, st.sampled_from([".", "..", "/", "/nowhere", "/etc/passwd"]))
_TIMES = st.integers(-(2**31), 2**33).flatmap(
    lambda second: st.integers(0, 999_999_999).map(lambda rest: second * 10**9 + rest)
)
TWO_TIMES = st.tuples(_TIMES, _TIMES)
OWNERS = st.sampled_from([0, 0, 1, 8, 65534, 54321, 2**31])
ENDS = st.sampled_from(["", "", "", "", "/", "/x", "/.", "/../."])


def create(path: str, kind: str, target: str, mode: int, owner: int, group: int, times: tuple[int, int]) -> None:  # fmt: skip
    """Create a file of any kind under a name that a Path would not keep as it is."""
    if kind == "absent":
        return
    if kind == "file":
        with open(path, "wb") as opened:  # noqa: PTH123
            opened.truncate(mode * mode * 10_000)  # up to 160 GB of nothing
    elif kind == "folder":
        os.mkdir(path)  # noqa: PTH102
    elif kind == "link":
        os.symlink(target, path)  # noqa: PTH211
    else:
        os.mknod(path, (stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK) | 0o600)
    os.chown(path, owner, group, follow_symlinks=False)
    if kind != "link":
        os.chmod(path, mode)  # noqa: PTH101
    os.utime(path, ns=times, follow_symlinks=False)


BYTES: st.SearchStrategy[bytes] = st.lists(
    st.sampled_from([b"a", b"line\n", b"\n", b"\r", b"\r\n", b"\x0b", b"\x1c", "é\u2028".encode(), b"\xff", b"\0", b"x" * 70_000]),
    max_size=6,
).map(b"".join)  # fmt: skip
_ATOMS = st.sampled_from(
    [*"ab c.*^$\\[]{}()+?|/-#'\"=~&<>_0", r"\.", r"\*", r"\/", r"\[", r"\]", r"\^", r"\$", r"\{", r"\(", r"\|", r"\+", r"\w", r"\<", "[ab]", ".*", "é", "\n"]
)  # fmt: skip
PATTERNS = st.builds(
    lambda head, atoms, tail: head + "".join(atoms) + tail,
    st.sampled_from(["", "^", "^.*"]),
    st.lists(_ATOMS, max_size=5),
    st.sampled_from(["", "$", ".*$"]),
)
TEXTS = st.lists(st.text("ab c.*^$\\[]{}()+?|/-#'\"=~&<>_0w", max_size=6), max_size=6).map("\n".join)

# Commands: a small tree, and what may be done to it.

ROOT = "/ROOT"
"""Stands in a command for the tree that it is for."""
Step = str | tuple[str, bytes]
"""A command's line; or a path below the root, and the contents to put there."""


def plant(root: Path) -> Path:
    """Create a small tree of all kinds of files."""
    for name in ("d", "d/e", "sticky", "setgid", "given"):
        (root / name).mkdir(parents=True)
    for name, text, mode in (("f", "f\n", 0o644), ("g", "g", 0o4755), ("a b", "spaces", 0o600), ("d/f", "inner", 0o640), ("it's", "quoted", 0o444),
                             ("empty", "", 0o0), ("one", "names", 0o644), ("listed", "acl", 0o640), ("capable", "#!/bin/true", 0o755)):  # fmt: skip
        (root / name).write_text(text)
        (root / name).chmod(mode)
    os.link(root / "one", root / "two")
    os.mknod(root / "sock", stat.S_IFSOCK | 0o644)
    links = {"to-f": "f", "to-d": "d", "to-nothing": "d/nothing", "loop": "loop", "d/up": "../f"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.chown(root / "g", 1, 8)
    os.chown(root / "d/f", 54321, 54321)
    (root / "sticky").chmod(0o1777)
    (root / "setgid").chmod(0o2775)
    os.chown(root / "setgid", 0, 8)
    os.setxattr(root / "listed", "system.posix_acl_access", ACL_FOR_NOBODY)
    os.setxattr(root / "f", "user.kept", b"value")
    os.setxattr(root / "given", "system.posix_acl_default", ACL_FOR_NOBODY)
    # CAP_NET_BIND_SERVICE, permitted and effective (linux/capability.h, VFS_CAP_REVISION_2).
    os.setxattr(root / "capable", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    (root / "given/f").write_text("without a list")
    os.removexattr(root / "given/f", "system.posix_acl_access")
    age(root)
    return root


def line(words: str, *paths: str) -> str:
    """A command's line, with paths below the root."""
    return StringCommand(words, *(QuoteString(f"{ROOT}/{path}") for path in paths)).get_raw_value()


def chown(path: str, user: str | None, group: str | None, follow: bool = True) -> tuple[Step, ...]:
    if not user and not group:
        return ()
    return (util.chown(f"{ROOT}/{path}", user, group, dereference=follow).get_raw_value(),)


def chmod(path: str, mode: Any) -> str:
    return util.chmod(f"{ROOT}/{path}", mode).get_raw_value()


def link(target: str, path: str) -> str:
    return StringCommand("ln -s", QuoteString(target), QuoteString(f"{ROOT}/{path}")).get_raw_value()


def put(
    path: str, data: bytes, mode: Any = None, user: str | None = None, group: str | None = None, owner_first: bool = True
) -> tuple[Step, ...]:  # fmt: skip
    """As files.put uploads; mode first, as files.template of another release might."""
    after = (*chown(path, user, group), *((chmod(path, mode),) if mode else ()))
    return ((path, data), *(after if owner_first else after[::-1]))


def _are_apart(paths: tuple[str, str]) -> bool:
    """What cp(1) copies of a folder into itself depends on the order of its names on disk."""
    first, second = (path.replace("to-d", "d").partition("/")[0] for path in paths)
    return first != second


_EXISTING = ["f", "g", "a b", "d/f", "it's", "empty", "one", "listed", "capable", "given/f", "to-f", "d/up", "to-nothing", "loop", "sock", "d", "to-d",
             "d/e", "sticky", "setgid", "given"]  # fmt: skip
_NEW = ["new", "d/new", "to-d/new", "given/new", "setgid/new", "x/y/z", "f/x", "d/", "f/", "new/", "d/../n", "à", "-n", "d/.", "n;m", "n\nm"]  # fmt: skip
_PATHS = st.sampled_from([*_EXISTING, *_EXISTING, *_NEW])
_USERS = st.sampled_from(["root", "daemon", "nobody", "no-such-user", "12", None])
_GROUPS = st.sampled_from(["root", "mail", "nogroup", "no-such-group", None])
_MODES = st.sampled_from(["644", "0644", "600", "755", "2755", "4750", "1777", "0", "000", "u+x", "g-s", "00755", "888", 640, "a=rX,u+w,g-w", "o=u-w"])  # fmt: skip
_DATA = st.sampled_from([b"", b"new\n", b"\0\xff" * 5000])
_ONE = st.builds(
    line,
    st.sampled_from(
        [
            "mkdir -p",
            "rm -f",
            "rm -rf",
            "touch",
            "touch -m -d 2020-01-01T00:00:00Z",
            "chmod -R 750",
            "chmod -R g+rwX",
            "chown -R daemon:mail",
            "chgrp -R 12",
            "chown 54321:12",
        ]
    ),
    _PATHS,
)
_TWO = st.tuples(
    st.sampled_from(["mv", "mv", "cp", "cp", "cp -r", "cp -a"]), st.tuples(_PATHS, _PATHS).filter(_are_apart)
).map(lambda chosen: line(chosen[0], *chosen[1]))
_TARGETS = st.sampled_from(["f", "d", "nowhere", "a b", "../x", "-t", "", "é", "$HOME"])
STEPS: st.SearchStrategy[tuple[Step, ...]] = st.one_of(
    _ONE.map(lambda line: (line,)),
    _TWO.map(lambda line: (line,)),
    st.builds(link, _TARGETS, _PATHS).map(lambda line: (line,)),
    st.builds(chown, _PATHS, _USERS, _GROUPS, st.booleans()),
    st.builds(chmod, _PATHS, _MODES).map(lambda line: (line,)),
    st.builds(put, _PATHS, _DATA, st.one_of(st.none(), _MODES), _USERS, _GROUPS, st.booleans()),
    st.builds(
        put, _PATHS, _DATA, st.sampled_from(["644", "4755"]), st.just("daemon"), st.just("mail"), st.booleans()
    ),
)  # fmt: skip
"""The commands of one operation."""
