"""A command that is done in the process leaves the same tree as the same command in a shell, or fails as it does.

What differs on purpose: a file that is put comes by rename, so it is a new inode, its folder's mtime changes, whoever
has the old one open keeps it, and a program that runs can be replaced; a pipe that nobody reads is an error and
is not waited for; a file is not put into a folder under a random name. Each has a test of its own here.
"""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.operations.util import files as util

from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.native import commands
from pyinfra_solo.native.pending_files import PendingFiles
from tests.support.both_ways import ACL_FOR_NOBODY, FEW, OLD, machine, our_state, tree, with_flag
from tests.support.pyinfra_api import stock_state, within

ROOT = "/ROOT"
"""Stands in a command for the tree that it is for."""
Step = str | tuple[str, bytes]
"""A command's line; or a path below the root, and what is put there."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Ours, and pyinfra's own."""
    with within(our_state(native=True)) as ours, within(stock_state()) as stock:
        assert isinstance(ours.connector, LocalConnector)
        ours.connector.puts.waits = True
        yield ours, stock


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def plant(root: Path) -> Path:
    """A small tree of all kinds of things."""
    for name in ("d", "d/e", "sticky", "setgid", "given"):
        (root / name).mkdir(parents=True)
    for name, text, mode in (("f", "f\n", 0o644), ("g", "g", 0o4755), ("a b", "spaces", 0o600), ("d/f", "inner", 0o640), ("it's", "quoted", 0o444),
                             ("empty", "", 0o0), ("one", "names", 0o644), ("listed", "acl", 0o640), ("capable", "#!/bin/true", 0o755)):  # fmt: skip
        (root / name).write_text(text)
        (root / name).chmod(mode)
    os.link(root / "one", root / "two")
    os.mknod(root / "sock", stat.S_IFSOCK | 0o644)
    for name, target in (
        ("to-f", "f"),
        ("to-d", "d"),
        ("to-nothing", "d/nothing"),
        ("loop", "loop"),
        ("d/up", "../f"),
    ):
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
    for path in (*root.rglob("*"), root):
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)
    return root


def does(host: Host, root: Path, steps: tuple[Step, ...]) -> bool:
    """Whether an operation of these steps went well."""
    try:
        for step in steps:
            if isinstance(step, tuple):
                host.connector.put_file(BytesIO(step[1]), f"{root}/{step[0]}")
            elif not host.run_shell_command(StringCommand(step.replace(ROOT, str(root))))[0]:
                return False
        if isinstance(host.connector, LocalConnector):
            host.connector.puts.appear()
    except OSError:
        return False
    return True


EXISTING = ["f", "g", "a b", "d/f", "it's", "empty", "one", "listed", "capable", "given/f", "to-f", "d/up", "to-nothing", "loop", "sock", "d", "to-d",
            "d/e", "sticky", "setgid", "given"]  # fmt: skip
PATHS = st.sampled_from(
    [
        *EXISTING,
        *EXISTING,
        "new",
        "d/new",
        "to-d/new",
        "given/new",
        "setgid/new",
        "x/y/z",
        "f/x",
        "d/",
        "f/",
        "new/",
        "d/../n",
        "à",
        "-n",
        "d/.",
        "n;m",
        "n\nm",
    ]
)
USERS = st.sampled_from(["root", "daemon", "nobody", "no-such-user", "12", None])
GROUPS = st.sampled_from(["root", "mail", "nogroup", "no-such-group", None])
MODES = st.sampled_from(
    ["644", "0644", "600", "755", "2755", "4750", "1777", "0", "000", "u+x", "g-s", "00755", "888", 640]
)
DATA = st.sampled_from([b"", b"new\n", b"\0\xff" * 5000])


def _told(words: str, *paths: str) -> str:
    return StringCommand(words, *(QuoteString(f"{ROOT}/{path}") for path in paths)).get_raw_value()


def _owned(path: str, user: str | None, group: str | None, follow: bool) -> tuple[Step, ...]:
    if not user and not group:
        return ()
    return (util.chown(f"{ROOT}/{path}", user, group, dereference=follow).get_raw_value(),)


def _moded(path: str, mode: Any) -> str:
    return util.chmod(f"{ROOT}/{path}", mode).get_raw_value()


def _linked(target: str, path: str) -> str:
    return StringCommand("ln -s", QuoteString(target), QuoteString(f"{ROOT}/{path}")).get_raw_value()


def _put(
    path: str, data: bytes, mode: Any, user: str | None, group: str | None, order: bool
) -> tuple[Step, ...]:
    """As files.put does it, and as files.template of another release might."""
    after = (*_owned(path, user, group, follow=True), *((_moded(path, mode),) if mode else ()))
    return ((path, data), *(after if order else after[::-1]))


def _apart(paths: tuple[str, str]) -> bool:
    """What cp(1) copies of a folder into itself depends on the order of its names on disk."""
    first, second = (path.replace("to-d", "d").partition("/")[0] for path in paths)
    return first != second


ONE = st.builds(_told, st.sampled_from(["mkdir -p", "rm -f", "rm -rf", "touch"]), PATHS)
TWO = st.tuples(
    st.sampled_from(["mv", "mv", "cp", "cp", "cp -r", "cp -a"]), st.tuples(PATHS, PATHS).filter(_apart)
)
OPERATIONS: st.SearchStrategy[tuple[Step, ...]] = st.one_of(
    ONE.map(lambda line: (line,)),
    TWO.map(lambda chosen: (_told(chosen[0], *chosen[1]),)),
    st.builds(
        _linked, st.sampled_from(["f", "d", "nowhere", "a b", "../x", "-t", "", "é", "$HOME"]), PATHS
    ).map(lambda line: (line,)),
    st.builds(_owned, PATHS, USERS, GROUPS, st.booleans()),
    st.builds(_moded, PATHS, MODES).map(lambda line: (line,)),
    st.builds(_put, PATHS, DATA, st.one_of(st.none(), MODES), USERS, GROUPS, st.booleans()),
    st.builds(
        _put, PATHS, DATA, st.sampled_from(["644", "4755"]), st.just("daemon"), st.just("mail"), st.booleans()
    ),
)


def test_any_commands_leave_the_tree_that_a_shell_leaves(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    ours, stock = hosts
    number, counted = count(), Counter[str]()
    assert isinstance(ours.connector, LocalConnector)
    before = ours.connector.waited
    ours.connector.waited = lambda _what, _seconds: counted.update(["by a shell"])

    @settings(FEW, max_examples=200)
    @given(
        st.lists(OPERATIONS, min_size=1, max_size=4),
        st.sampled_from([0o022, 0o022, 0, 0o077, 0o777, 0o300, 0o027]),
    )
    @example([(_told("mkdir -p", "x/y/z"),)], 0o377)
    @example([_put("given/f", b"x", None, None, None, True)], 0o022)
    @example([_put("capable", b"x", "755", None, None, True)], 0o022)
    @example([_put("to-nothing", b"x", "644", None, None, True)], 0o022)
    @example([_put("d/f", b"x", "4755", "daemon", "mail", False)], 0o022)
    @example([(_told("cp", "f", "given/new"),)], 0o022)
    @example([(_told("cp -r", "g", "new"),)], 0)
    def holds(operations: list[tuple[Step, ...]], mask: int) -> None:
        folder = tmp_path / str(next(number))
        mine, theirs = plant(folder / "ours"), plant(folder / "stock")
        with umask(mask):
            for steps in operations:
                if any(isinstance(step, tuple) and (theirs / step[0]).is_dir() for step in steps):
                    continue  # see above
                counted.update(["asked"] * len(steps))
                well, they = does(ours, mine, steps), does(stock, theirs, steps)
                counted.update([f"well: {well}"])
                assert well is they, f"{well} here, {they} there"
                assert tree(mine) == tree(theirs)
                if well:
                    assert not list(folder.rglob(".pyinfra-solo-*.new"))

    try:
        holds()
    finally:
        ours.connector.waited = before
    assert counted["by a shell"] < 0.8 * counted["asked"], counted
    assert counted["well: True"] > 50, counted
    assert counted["well: False"] > 50, counted


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("name", ["f", "d"])
@pytest.mark.parametrize(
    "steps",
    [_put("f", b"new", "600", None, None, True), _put("d/f", b"new", None, "daemon", None, True), (_moded("f", "600"),), (_moded("d", "700"),),
     _owned("f", "daemon", None, True), (_told("rm -f", "f"),), (_told("mv", "f", "n"),), (_told("touch", "f"),),
     (_told("touch", "d/n"),), (_linked("x", "d/n"),), (_told("mkdir -p", "d/n/m"),), (_told("cp", "g", "f"),),
     (_told("cp", "g", "d/f"),)],
)  # fmt: skip
def test_what_may_not_be_changed_fails_as_in_a_shell(
    steps: tuple[Step, ...], name: str, flag: str, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """Files and folders that are immutable, or to which one may append only: root, too, is refused."""
    trees: list[Path] = []
    freed, well = [], []
    try:
        for host in hosts:
            trees.append(plant(tmp_path / str(len(trees))))
            freed.append(with_flag(flag, trees[-1] / name))
            well.append(does(host, trees[-1], steps))
    finally:
        for free in freed:
            free()
    assert well[0] is well[1]
    # A folder that keeps what it has keeps this too.
    for left in trees[0].rglob(".pyinfra-solo-*.new"):
        assert (flag, left.parent.name) == ("a", "d")
        left.unlink()
    assert tree(trees[0]) == tree(trees[1])


NOT_UNDERSTOOD = [
    "chmod 644 /a; rm /b", "chmod 644 $HOME", "chmod 644 /a*", "chmod  644 /a", "chmod 644 ~/a", "chmod 644 /a /b", "chmod -R 644 /a", "chmod 644 a",
    "chmod 644", "chmod", "chown", "chown -h", "chown root", "chown -h root", "chown -R root /a", "chown 0:0 /a", "chown root: /a", "chown :root /a",
    "chgrp -h root", "cp", "cp -r", "cp -r /a", "cp -r /a /b /c", "cp -a /a /b", "cp /a", "mv /a", "mv -f /a /b", "rm /a", "rm -f", "rm -f /a /b",
    "rm -rf /a", "ln /a /b", "ln -sf /a /b", "ln -s /a", "ln -s -t /b", "touch -m /a", "touch", "mkdir /a", "mkdir -p", "mkdir -p a", "mkdir -p /proc/a",
    "rm -f /dev/null", "rm -f '/a\\b'", "rm -f '/é'", "rm -f \"/a\"", "rm -f '/a", "rm -f /a\n", "rm -f /a #b", "RM -f /a", "/bin/rm -f /a", " rm -f /a", "",
    "echo a", "rm -f {/a,/b}", "rm -f /a&", "rm -f !/a", "rm -f /a\0", "true", "rm -f '/a'\"'\"'b'", "chmod 0644 '/x\n'", "touch '/a\tb'",
]  # fmt: skip


@pytest.mark.parametrize("line", NOT_UNDERSTOOD)
def test_a_line_that_is_not_understood_to_its_last_character_is_not_done(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("chmod", "chown", "unlink", "rename", "symlink", "mkdir", "makedirs", "utime"):
        monkeypatch.setattr(os, name, lambda *_args, name=name, **_options: done.append(name))
    assert not commands.done(line, PendingFiles())
    assert done == []


def test_a_line_of_many_quotes_is_refused_at_once() -> None:
    """Nothing is tried twice: the pattern is possessive."""
    assert not commands.done("rm -f " + "''a" * 50_000 + '"', PendingFiles())


def test_a_file_is_seen_with_its_owner_and_mode_or_as_it_was(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """Whoever looks at any moment: a key is never there for all to read."""
    ours, _ = hosts
    seen: set[tuple[int, ...]] = set()
    ended, path = threading.Event(), tmp_path / "file"

    def watch() -> None:
        while not ended.is_set():
            try:
                about = path.stat()
                seen.add((stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid, about.st_size))
            except FileNotFoundError:
                seen.add(())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        for turn in range(150):
            if turn % 3 == 0:
                path.unlink(missing_ok=True)
            mode, user, group = ("640", "daemon", "mail") if turn % 2 else ("751", "nobody", "nogroup")
            assert does(ours, tmp_path, _put("file", b"x" * int(mode), mode, user, group, turn % 5 > 2))
    finally:
        ended.set()
        watching.join()
    assert seen <= {(), (0o640, 1, 8, 640), (0o751, 65534, 65534, 751)}
    assert len(seen) > 1, "nothing was seen"


def test_a_program_that_runs_can_be_replaced(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """In place that fails: Text file busy."""
    ours, stock = hosts
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    running = subprocess.Popen([program, "60"])
    try:
        assert not does(stock, tmp_path, _put("sleep", b"new", None, None, None, True))
        assert does(ours, tmp_path, _put("sleep", b"new", None, None, None, True))
    finally:
        running.kill()
        running.wait()
    assert program.read_bytes() == b"new"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


def test_what_is_not_native_takes_the_ordinary_road(tmp_path: Path) -> None:
    state, run = our_state(native=False), list[str]()
    with within(state) as host:
        machine(state).waited = lambda what, _seconds: run.append(what)
        assert does(host, tmp_path, (_told("touch", "file"), _moded("file", "600")))
    assert run == ["touch", "chmod"]
