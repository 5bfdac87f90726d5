"""A native command leaves the tree that the same command in a shell leaves, or fails as it does.

Differences on purpose: a file is uploaded by rename, so it is a new inode, its folder's mtime changes,
whoever has the old one open keeps it, and a running program can be replaced; a pipe without a reader
is an error and not a wait; a file is not put into a folder under a random name. Each has a test.
"""

import os
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO, StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.operations import files, python, server, systemd

from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.native import commands, modes
from pyinfra_solo.native.pending_files import PendingFiles
from tests.support import both_ways as ways
from tests.support.both_ways import WAYS, Step, chmod, chown, line, link, put, tree
from tests.support.pyinfra_api import Played, play_in, pyinfra_state, within


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Ours, and pyinfra's own."""
    with within(ways.our_state(native=True)) as ours, within(pyinfra_state()) as theirs:
        assert isinstance(ours.connector, LocalConnector)
        ours.connector.pending.defer_rename = True
        yield ours, theirs


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def succeeds(host: Host, root: Path, steps: tuple[Step, ...]) -> bool:
    """Run an operation of these steps."""
    try:
        for step in steps:
            if isinstance(step, tuple):
                host.connector.put_file(BytesIO(step[1]), f"{root}/{step[0]}")
            elif not host.run_shell_command(StringCommand(step.replace(ways.ROOT, str(root))))[0]:
                return False
        if isinstance(host.connector, LocalConnector):
            host.connector.pending.rename_into_place()
    except OSError:
        return False
    return True


def test_any_commands_leave_the_tree_that_a_shell_leaves(
    hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = hosts
    number, counted = count(), Counter[str]()
    monkeypatch.setattr(ours.connector, "after_child", lambda _name, _seconds: counted.update(["by a shell"]))

    @settings(ways.FEW, max_examples=200)
    @given(
        st.lists(ways.STEPS, min_size=1, max_size=4),
        st.sampled_from([0o022, 0o022, 0, 0o077, 0o777, 0o300, 0o027]),
    )
    @example([(line("mkdir -p", "x/y/z"),)], 0o377)
    @example([put("given/f", b"x")], 0o022)
    @example([put("capable", b"x", "755")], 0o022)
    @example([put("to-nothing", b"x", "644")], 0o022)
    @example([put("d/f", b"x", "4755", "daemon", "mail", owner_first=False)], 0o022)
    def holds(operations: list[tuple[Step, ...]], mask: int) -> None:
        folder = tmp_path / str(next(number))
        mine, other = ways.plant(folder / "ours"), ways.plant(folder / "theirs")
        with umask(mask):
            for steps in operations:
                if any(isinstance(step, tuple) and (other / step[0]).is_dir() for step in steps):
                    continue  # a difference on purpose
                counted.update(["run"] * len(steps))
                well, they = succeeds(ours, mine, steps), succeeds(theirs, other, steps)
                counted.update([f"well: {well}"])
                assert well is they, f"{well} here, {they} there"
                assert tree(mine) == tree(other)
                if well:
                    assert not list(folder.rglob(".pyinfra-solo-*.new"))

    holds()
    assert counted["by a shell"] < 0.8 * counted["run"], counted
    assert counted["well: True"] > 50, counted
    assert counted["well: False"] > 50, counted


@pytest.mark.parametrize("flag", ["i", "a"])
@pytest.mark.parametrize("name", ["f", "d"])
@pytest.mark.parametrize(
    "steps",
    [put("f", b"new", "600"), put("d/f", b"new", None, "daemon"), (chmod("f", "600"),), (chmod("d", "700"),),
     chown("f", "daemon", None), (line("rm -f", "f"),), (line("touch", "f"),),
     (line("touch", "d/n"),), (link("x", "d/n"),), (line("mkdir -p", "d/n/m"),)],
)  # fmt: skip
def test_changes_of_immutable_files_fail_as_in_a_shell(
    steps: tuple[Step, ...], name: str, flag: str, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    """Files and folders that are immutable, or append-only: root, too, is refused."""
    trees: list[Path] = []
    free, well = [], []
    try:
        for host in hosts:
            trees.append(ways.plant(tmp_path / str(len(trees))))
            free.append(ways.with_flag(flag, trees[-1] / name))
            well.append(succeeds(host, trees[-1], steps))
    finally:
        for call in free:
            call()
    assert well[0] is well[1]
    assert tree(trees[0]) == tree(trees[1])


NOT_UNDERSTOOD = [
    "chmod 644 /a; rm /b", "chmod 644 $HOME", "chmod 644 /a*", "chmod  644 /a", "chmod 644 ~/a", "chmod 644 /a /b", "chmod 644 a",
    "chmod 644", "chmod", "chmod -w /a", "chmod 888 /a", "chmod -R 644", "chown -R root", "chown -hR root /a", "chown", "chown -h", "chown root", "chown -h root", "chown : /a",
    "chgrp -h root", "cp /a /b", "mv /a /b", "rm /a", "rm -f", "rm -f /a /b",
    "rm -rf /a", "ln /a /b", "ln -sf /a /b", "ln -s /a", "ln -s -t /b", "touch -m /a", "touch -m -d yesterday /a", "touch", "mkdir /a", "mkdir -p", "mkdir -p a", "mkdir -p /proc/a",
    "rm -f /dev/null", "rm -f \"/a\"", "rm -f '/a", "rm -f /a\n", "rm -f /a #b", "RM -f /a", "/bin/rm -f /a", " rm -f /a", "",
    "echo a", "rm -f {/a,/b}", "rm -f /a&", "rm -f !/a", "rm -f /a\0", "true",
    "rm -f " + "''a" * 50_000 + '"',
]  # fmt: skip
"""The last one would take for ever if the pattern went back."""


@pytest.mark.parametrize("text", NOT_UNDERSTOOD, ids=lambda text: text[:20].encode("unicode_escape").decode())
def test_a_line_that_is_not_fully_understood_is_not_run(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in ("chmod", "chown", "unlink", "rename", "symlink", "mkdir", "makedirs", "utime"):
        monkeypatch.setattr(os, name, lambda *_args, name=name, **_options: called.append(name))
    assert not commands.run(text, PendingFiles())
    assert called == []


_WHO = st.sampled_from(["", "u", "g", "o", "a", "ug", "go", "ugo"])
_LETTERS = st.one_of(st.sampled_from(["", "u", "g", "o"]), st.text("rwxXst", max_size=4))
_CLAUSES = st.builds(
    lambda who, changes: who + "".join(operator + letters for operator, letters in changes),
    _WHO, st.lists(st.tuples(st.sampled_from("+-="), _LETTERS), min_size=1, max_size=2),
)  # fmt: skip
_SYMBOLS = st.lists(_CLAUSES, min_size=1, max_size=3).map(",".join).filter(lambda mode: mode[0] != "-")
_NUMBERS = st.one_of(st.integers(0, 0o7777).map("{:o}".format), st.integers(0, 0o7777).map("{:05o}".format))


def test_any_mode_is_what_chmod_makes_of_it(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()

    @settings(ways.FEW, max_examples=300)
    @given(_SYMBOLS | _NUMBERS, st.integers(0, 0o7777), st.sampled_from([0o022, 0, 0o077, 0o137]))
    def holds(mode: str, before: int, mask: int) -> None:
        assert modes.is_understood(mode)
        for path in (file, folder):
            path.chmod(before)
            ours = modes.changed(mode, path.stat().st_mode, mask)
            with umask(mask):
                subprocess.run(["chmod", mode, path], check=True)
            assert oct(ours) == oct(stat.S_IMODE(path.stat().st_mode)), path.name

    holds()


QUOTED = [
    "it's",
    "é",
    "a\\b",
    "a\nb",
    "a\tb",
    "\udce9",
    "'",
    "''",
    "$HOME",
    "`id`",
    'a"b',
    "*",
    "a b",
    "~",
    "\u2028",
]


@pytest.mark.parametrize("name", QUOTED, ids=ascii)
def test_a_quoted_name_is_understood(name: str, tmp_path: Path) -> None:
    """As pyinfra quotes it."""
    path = tmp_path / name
    for command in ("touch", "chmod 640", "chown daemon:12"):
        assert commands.run(StringCommand(command, QuoteString(str(path))).get_raw_value(), PendingFiles())
    about = path.stat()
    assert (oct(about.st_mode), about.st_uid, about.st_gid) == ("0o100640", 1, 12)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_appears_with_its_owner_and_mode(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """Whoever reads at any moment: a key is never there for all to read."""
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
            assert succeeds(ours, tmp_path, put("file", b"x" * int(mode), mode, user, group, turn % 5 > 2))
    finally:
        ended.set()
        watching.join()
    assert seen <= {(), (0o640, 1, 8, 640), (0o751, 65534, 65534, 751)}
    assert len(seen) > 1, "nothing was seen"


def test_a_running_program_can_be_replaced(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """In place that fails: Text file busy."""
    ours, theirs = hosts
    program = tmp_path / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    running = subprocess.Popen([program, "60"])
    try:
        assert not succeeds(theirs, tmp_path, put("sleep", b"new"))
        assert succeeds(ours, tmp_path, put("sleep", b"new"))
    finally:
        running.kill()
        running.wait()
    assert program.read_bytes() == b"new"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755


# Operations of pyinfra, each of the three ways on a tree of its own.


def everything(root: Path) -> None:
    """Each operation on files that can be done twice."""

    def at(name: str) -> str:
        return f"{root}/{name}"

    def put(name: str, dest: str, src: Any, **options: Any) -> None:
        files.put(name=name, dest=at(dest), src=StringIO(src) if isinstance(src, str) else src, **options)

    whose: dict[str, Any] = {"user": "daemon", "group": "mail"}
    files.directory(name="a folder", path=at("a/b c/d"), mode="750", **whose)
    files.directory(name="a folder that is gone", path=at("old"), present=False)
    put("a text", "a/text", "text é\n", mode="644")
    put("bytes", "a/b c/it's", BytesIO(b"\0\xff"), mode="4750", create_remote_dir=True, **whose)
    files.put(name="a file of ours", src="pyproject.toml", dest=at("a/b c"), mode=True)
    put("a secret", "deep/er/secret", "s", mode="600", user="nobody", create_remote_dir=True)
    put("through a link", "to-target", "through", mode="640")
    put("of two names", "one", "both", mode="600")
    put("with a list", "listed", "listed", mode="660")
    files.template(
        name="a template", src=at("../t.j2"), dest=at("filled"), mode="640", user="root", value="x"
    )
    files.link(name="a link", path=at("link"), target="a/text", user="daemon")
    files.link(name="a link that is gone", path=at("old-link"), present=False)
    files.file(name="a file", path=at("file"), mode="600", group="mail")
    files.file(name="a file that is gone", path=at("old-file"), present=False)
    files.line(name="a line", path=at("lines"), line="key = 1")
    files.line(name="a line instead", path=at("lines"), line="^other.*$", replace="other = 2")
    files.line(name="no line", path=at("lines"), line="gone.*", present=False)
    files.replace(name="a word", path=at("lines"), text="word", replace="sword$")
    inner = "inner\n$HOME 'x'"
    files.block(name="a block", path=at("lines"), content=inner, try_prevent_shell_expansion=True)
    modes: dict[str, Any] = {"mode": "644", "dir_mode": "755"}
    files.sync(name="a folder of files", src=at("../from"), dest=at("synced"), delete=True, **modes)
    server.shell(name="only with what is there", commands=[f"grep -q inner {root}/lines"])


def start(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "old").mkdir()
    (root / "old-file").touch()
    (root / "old-link").symlink_to("nowhere")
    (root / "target").write_text("target")
    (root / "to-target").symlink_to("target")
    (root / "one").write_text("one")
    os.link(root / "one", root / "two")
    (root / "listed").write_text("old")
    os.setxattr(root / "listed", "system.posix_acl_access", ways.ACL_FOR_NOBODY)
    (root / "lines").write_text("word\nother = 1\ngone 1\nlast")
    given = root.parent / "from"
    (given / "in ner").mkdir(parents=True, exist_ok=True)
    (given / "in ner/one").write_text("one")
    (given / "two.txt").write_bytes(b"\xff\0")
    (root.parent / "t.j2").write_text("{{ value }} is filled in\n")
    ways.age(root)


def drift(root: Path) -> None:
    (root / "a/text").write_text("somebody's")
    (root / "a/b c/it's").chmod(0o777)
    os.chown(root / "a/b c/d", 1, 1)
    (root / "deep/er/secret").unlink()
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")
    (root / "old-file").touch()
    (root / "lines").write_text("other = 3\nword\n# BEGIN PYINFRA BLOCK\nnothing\n")
    (root / "synced/more").touch()
    os.chown(root / "filled", 54321, 0)


def test_operations_do_the_same_at_first_repeated_and_after_a_drift(tmp_path: Path) -> None:
    found: dict[str, list[Any]] = {way: [] for way in WAYS}
    for way, state in WAYS.items():
        root = tmp_path / way / "root"
        start(root)
        for change in (lambda _root: None, lambda _root: None, drift):
            change(root)
            played = play_in(state(), partial(everything, root))
            found[way] += [played.made, played.failed, tree(root)]
    assert found["native"] == found["pyinfra"]
    assert found["native-off"] == found["pyinfra"]
    first, repeated, drifted = found["pyinfra"][::3]
    assert found["pyinfra"][1::3] == [""] * 3
    assert len(first) > 15
    assert repeated == ("through a link", "a word", "only with what is there")
    assert 8 < len(drifted) < len(first)


PLAIN = {"chmod", "chown", "touch", "mkdir", "ln", "fact File", "fact Directory", "fact Link", "fact Sha1File", "fact TmpDir"}  # fmt: skip


@pytest.mark.parametrize("native", [True, False])
def test_plain_commands_and_facts_need_no_child(native: bool, tmp_path: Path) -> None:
    """But for a name with a quote in it. With native off, facts need one, and commands still none."""
    start(tmp_path / "root")
    children: list[str] = []
    for _ in range(2):
        state = ways.our_state(native=native)
        ways.connector_of(state).after_child = lambda name, _seconds: children.append(name)
        play_in(state, lambda: everything(tmp_path / "root"))
    plain = [name for name in children if name in PLAIN]
    if native:
        assert plain == ["fact Sha1File"]
    else:
        assert [name for name in plain if "fact" not in name] == []
        assert {"fact File", "fact Sha1File"} <= set(plain)


def ignored(root: Path) -> None:
    files.put(name="first", src=StringIO("x"), dest=str(root / "fixed"), mode="600", _ignore_errors=True)
    files.file(name="then", path=str(root / "after"))


def upload(root: Path, name: str, **options: Any) -> None:
    files.put(src=StringIO("x"), dest=str(root / name), **options)


Declare = Callable[[Path], Any]
FAILING: dict[str, Declare] = {
    "a folder that is not there": partial(upload, name="none/x", create_remote_dir=False),
    "a file in the way": lambda root: files.directory(path=f"{root}/file/x"),
    "a folder in the way": partial(upload, name="folder"),
    "another kind": lambda root: files.link(path=f"{root}/file", target="x"),
    "a folder where a file is": lambda root: files.directory(path=f"{root}/file"),
    "an account that is not there": partial(upload, name="new", user="nobody-of-that-name"),
    "a group that is not there": lambda root: files.file(path=f"{root}/new", group="none-of-that-name"),
    "a mode that is none": partial(upload, name="new", mode="9"),
    "a link to nowhere": partial(upload, name="nowhere", mode="600"),
    "an immutable file": partial(upload, name="fixed", mode="600"),
    "a template that is not there": lambda root: files.template(src=f"{root}/none.j2", dest=f"{root}/new"),
    "a command": lambda root: server.shell(commands=[f"touch {root}/before", "false", f"touch {root}/after"]),
    "a function": lambda root: python.call(function=(root / "none").rmdir),
    "an unknown service": lambda root: systemd.service(service=f"none-of-that-name-{root.name}"),
    "a reload of systemd": lambda root: systemd.daemon_reload(_chdir=str(root)),
}
SUCCEEDING: dict[str, Declare] = {
    "an ignored failure": ignored,
    "another kind by force": lambda root: files.link(
        path=f"{root}/file", target="x", force=True, force_backup_dir=f"{root}/empty"
    ),
    "as another account": lambda root: files.file(
        path=f"{root}/empty/by-nobody", _su_user="nobody", _su_shell="/bin/sh"
    ),
    "in another folder": lambda root: server.shell(
        commands=["basename $(pwd) > here"], _chdir=f"{root}/empty"
    ),
    "a time": partial(upload, name="new", mode="600", mtime="2020-01-01T00:00:00Z"),
    "touched": lambda root: files.file(path=f"{root}/file", touch=True),
    "a script": lambda root: server.script(src=f"{root}/script", args=[str(root)]),
    "fetched": lambda root: files.get(src=f"{root}/file", dest=f"{root}/got"),
}
IMMUTABLE = ("an immutable file", "an ignored failure")
"""Where the file `fixed` is immutable."""
OF_SYSTEMD = ("an unknown service", "a reload of systemd")
"""They succeed where systemd does not run."""


def small(root: Path) -> None:
    (root / "folder").mkdir(parents=True)
    (root / "empty").mkdir()
    for name in ("file", "other", "folder/inner", "folder/other", "fixed"):
        (root / name).write_text(name)
    (root / "script").write_text('#!/bin/sh\necho well > "$1/by-script"\n')
    (root / "empty").chmod(0o777)
    (root / "nowhere").symlink_to("absent")
    ways.age(root)


@pytest.mark.parametrize("what", [*FAILING, *SUCCEEDING])
def test_an_operation_ends_alike(what: str, open_folder: Path) -> None:
    """With success or not, and the same changes by then. The message of a failure may differ."""
    played: dict[str, Played] = {}
    trees: dict[str, Any] = {}
    for way, state in WAYS.items():
        root = open_folder / way / "root"
        small(root)
        free = ways.with_flag("i", root / "fixed") if what in IMMUTABLE else None
        try:
            played[way] = play_in(state(), partial({**FAILING, **SUCCEEDING}[what], root))
        finally:
            if free:
                free()
        trees[way] = tree(root)
    theirs = played["pyinfra"]
    for way in ("native", "native-off"):
        assert (played[way].made, bool(played[way].failed)) == (theirs.made, bool(theirs.failed)), way
        assert trees[way] == trees["pyinfra"], way
    if what not in OF_SYSTEMD:
        assert bool(theirs.failed) is (what in FAILING), theirs.text
