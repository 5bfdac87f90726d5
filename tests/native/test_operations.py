"""An operation of pyinfra's does here what it does in pyinfra: from nothing, again, and where somebody has been at it.

Three ways, each on a tree of its own: ours, ours with everything by a shell (the switch), and pyinfra's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyinfra.operations import files, python, server, systemd

from tests.support.both_ways import ACL_FOR_NOBODY, OLD, machine, our_state, play_in, tree, with_flag
from tests.support.machine import ENGINE, REPOSITORY
from tests.support.pyinfra_api import Played, stock_state

if TYPE_CHECKING:
    from pyinfra.api import State


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A folder that every account can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


WAYS: dict[str, Callable[[], State]] = {
    "native": lambda: our_state(native=True),
    "shelled": lambda: our_state(native=False),
    "stock": stock_state,
}
Declare = Callable[[Path], Any]


def everything(root: Path) -> None:
    """Each operation on files that can be done twice."""
    files.directory(name="a folder", path=str(root / "a/b c/d"), mode="750", user="daemon", group="mail")
    files.directory(name="a folder that is gone", path=str(root / "old"), present=False)
    files.put(name="a text", src=StringIO("text é\n"), dest=str(root / "a/text"), mode="644")
    files.put(
        name="bytes",
        src=BytesIO(b"\0\xff"),
        dest=str(root / "a/b c/it's"),
        mode="4750",
        user="daemon",
        group="mail",
        create_remote_dir=True,
    )
    files.put(name="a file of ours", src="pyproject.toml", dest=str(root / "a/b c"), mode=True)
    files.put(
        name="a secret",
        src=StringIO("s"),
        dest=str(root / "deep/er/secret"),
        mode="600",
        user="nobody",
        create_remote_dir=True,
    )
    files.put(name="through a link", src=StringIO("through"), dest=str(root / "to-target"), mode="640")
    files.put(name="of two names", src=StringIO("both"), dest=str(root / "one"), mode="600")
    files.put(name="with a list", src=StringIO("listed"), dest=str(root / "listed"), mode="660")
    files.template(
        name="a template",
        src=str(root.parent / "t.j2"),
        dest=str(root / "filled"),
        mode="640",
        user="root",
        value="x",
    )
    files.link(name="a link", path=str(root / "link"), target="a/text", user="daemon")
    files.link(name="a link that is gone", path=str(root / "old-link"), present=False)
    files.file(name="a file", path=str(root / "file"), mode="600", group="mail")
    files.file(name="a file that is gone", path=str(root / "old-file"), present=False)
    files.line(name="a line", path=str(root / "lines"), line="key = 1")
    files.line(name="a line instead", path=str(root / "lines"), line="^other.*$", replace="other = 2")
    files.line(name="no line", path=str(root / "lines"), line="gone.*", present=False)
    files.replace(name="a word", path=str(root / "lines"), text="word", replace="sword$")
    files.block(
        name="a block", path=str(root / "lines"), content="inner\n$HOME 'x'", try_prevent_shell_expansion=True
    )
    files.sync(
        name="a folder of files",
        src=str(root.parent / "from"),
        dest=str(root / "synced"),
        mode="644",
        dir_mode="755",
        delete=True,
    )
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
    os.setxattr(root / "listed", "system.posix_acl_access", ACL_FOR_NOBODY)
    (root / "lines").write_text("word\nother = 1\ngone 1\nlast")
    given = root.parent / "from"
    (given / "in ner").mkdir(parents=True, exist_ok=True)
    (given / "in ner/one").write_text("one")
    (given / "two.txt").write_bytes(b"\xff\0")
    (root.parent / "t.j2").write_text("{{ value }} is filled in\n")
    for path in root.rglob("*"):
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)


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


def test_operations_do_the_same_from_nothing_again_and_after_a_drift(tmp_path: Path) -> None:
    said: dict[str, list[Any]] = {way: [] for way in WAYS}
    for way, state in WAYS.items():
        root = tmp_path / way / "root"
        start(root)
        for change in (lambda _root: None, lambda _root: None, drift):
            change(root)
            played = play_in(state(), partial(everything, root))
            said[way] += [played.made, played.failed, tree(root)]
    assert said["native"] == said["stock"]
    assert said["shelled"] == said["stock"]
    assert "" == said["stock"][1] == said["stock"][4] == said["stock"][7]
    assert len(said["stock"][0]) > 15, "from nothing"
    assert said["stock"][3] == ("through a link", "a word", "only with what is there"), "again"
    assert 8 < len(said["stock"][6]) < len(said["stock"][0]), "after a drift"


def test_most_is_done_without_a_shell(tmp_path: Path) -> None:
    """Else nothing of this would be tested."""
    start(tmp_path / "root")
    run: list[str] = []
    for _ in range(2):
        state = our_state(native=True)
        machine(state).waited = lambda what, _seconds: run.append(what)
        play_in(state, lambda: everything(tmp_path / "root"))
    plain = {
        "cp",
        "chmod",
        "chown",
        "touch",
        "mkdir",
        "ln",
        "fact File",
        "fact Directory",
        "fact Link",
        "fact Sha1File",
        "fact TmpDir",
    }
    assert [what for what in run if what in plain] == ["chown", "chmod", "fact Sha1File"], (
        "of the name with a quote"
    )


def _ignored(root: Path) -> None:
    files.put(name="first", src=StringIO("x"), dest=str(root / "fixed"), mode="600", _ignore_errors=True)
    files.file(name="then", path=str(root / "after"))


FAILING: dict[str, Declare] = {
    "a folder that is not there": lambda root: files.put(
        src=StringIO("x"), dest=str(root / "none/x"), create_remote_dir=False
    ),
    "a file in the way": lambda root: files.directory(path=str(root / "file/x")),
    "a folder in the way": lambda root: files.put(src=StringIO("x"), dest=str(root / "folder")),
    "another kind": lambda root: files.link(path=str(root / "file"), target="x"),
    "a folder where a file is": lambda root: files.directory(path=str(root / "file")),
    "an account that is not there": lambda root: files.put(
        src=StringIO("x"), dest=str(root / "new"), user="nobody-of-that-name"
    ),
    "a group that is not there": lambda root: files.file(path=str(root / "new"), group="none-of-that-name"),
    "a mode that is none": lambda root: files.put(src=StringIO("x"), dest=str(root / "new"), mode="9"),
    "a link to nowhere": lambda root: files.put(src=StringIO("x"), dest=str(root / "nowhere"), mode="600"),
    "a file that may not be changed": lambda root: files.put(
        src=StringIO("x"), dest=str(root / "fixed"), mode="600"
    ),
    "a copy into what is no folder": lambda root: files.copy(
        src=str(root / "file"), dest=str(root / "other")
    ),
    "a copy of nothing": lambda root: files.copy(src=str(root / "none"), dest=str(root / "folder")),
    "a move of nothing": lambda root: files.move(src=str(root / "none"), dest=str(root / "folder")),
    "a template that is not there": lambda root: files.template(
        src=str(root / "none.j2"), dest=str(root / "new")
    ),
    "a command": lambda root: server.shell(commands=[f"touch {root}/before", "false", f"touch {root}/after"]),
    "a function": lambda root: python.call(function=(root / "none").rmdir),
    "a service that systemd has not": lambda root: systemd.service(service=f"none-of-that-name-{root.name}"),
    "a reload of systemd": lambda root: systemd.daemon_reload(_chdir=str(root)),
}
WELL: dict[str, Declare] = {
    "what may fail": _ignored,
    "a copy of a file": lambda root: files.copy(src=str(root / "file"), dest=str(root / "folder")),
    "a copy of a folder": lambda root: files.copy(src=str(root / "folder"), dest=str(root / "empty")),
    "a copy over another": lambda root: files.copy(
        src=str(root / "other"), dest=str(root / "folder"), overwrite=True
    ),
    "a move": lambda root: files.move(src=str(root / "file"), dest=str(root / "folder")),
    "a move of a folder": lambda root: files.move(src=str(root / "folder"), dest=str(root / "empty")),
    "another kind by force": lambda root: files.link(
        path=str(root / "file"), target="x", force=True, force_backup_dir=str(root / "empty")
    ),
    "as another account": lambda root: files.file(
        path=str(root / "empty/by-nobody"), _su_user="nobody", _su_shell="/bin/sh"
    ),
    "in another folder": lambda root: server.shell(
        commands=["basename $(pwd) > here"], _chdir=str(root / "empty")
    ),
    "a time": lambda root: files.put(
        src=StringIO("x"), dest=str(root / "new"), mode="600", mtime="2020-01-01T00:00:00Z"
    ),
    "touched": lambda root: files.file(path=str(root / "file"), touch=True),
    "a script": lambda root: server.script(src=str(root / "script"), args=[str(root)]),
    "fetched": lambda root: files.get(src=str(root / "file"), dest=str(root / "got")),
}


FIXED = ("a file that may not be changed", "what may fail")
"""Where the file `fixed` is immutable."""


def small(root: Path) -> None:
    (root / "folder").mkdir(parents=True)
    (root / "empty").mkdir()
    for name in ("file", "other", "folder/inner", "folder/other", "fixed"):
        (root / name).write_text(name)
    (root / "script").write_text('#!/bin/sh\necho well > "$1/by-script"\n')
    (root / "empty").chmod(0o777)
    (root / "nowhere").symlink_to("absent")
    for path in root.rglob("*"):
        os.utime(path, ns=(OLD, OLD), follow_symlinks=False)


@pytest.mark.parametrize("what", [*FAILING, *WELL])
def test_an_operation_ends_alike(what: str, for_all: Path) -> None:
    """Well or not, with the same changes by then. The words of a failure may be others."""
    played: dict[str, Played] = {}
    trees: dict[str, Any] = {}
    for way, state in WAYS.items():
        root = for_all / way / "root"
        small(root)
        freed = with_flag("i", root / "fixed") if what in FIXED else None
        try:
            played[way] = play_in(state(), partial({**FAILING, **WELL}[what], root))
        finally:
            if freed:
                freed()
        trees[way] = tree(root)
    for way in ("native", "shelled"):
        assert (played[way].made, bool(played[way].failed)) == (
            played["stock"].made,
            bool(played["stock"].failed),
        ), way
        assert trees[way] == trees["stock"], way
    if "systemd" not in what:
        assert bool(played["stock"].failed) is (what in FAILING), played["stock"].text


_ON_ITS_OWN_ETC = """
import json, subprocess, sys
from pathlib import Path
from pyinfra.operations import apt, server
from tests.support.pyinfra_api import stock_state
from tests.support.both_ways import our_state, play_in

folder = Path(sys.argv[1])
subprocess.run(["cp", "-a", "/etc", folder / "etc"], check=True)
subprocess.run(["mount", "--bind", folder / "etc", "/etc"], check=True)

def accounts(shell="/bin/sh"):
    server.group(name="a group", group="staffed", gid=54400)
    server.group(name="a group that is gone", group="plugdev", present=False)
    server.user(name="an account", user="one", group="staffed", groups=["mail"], home="/nonexistent", create_home=False, uid=54401, shell=shell, comment="One, é")
    server.user(name="one that is there", user="root", home="/root")
    server.user(name="one that is gone", user="irc", present=False)
    apt.packages(name="packages that are there", packages=["dpkg", "apt", "libc6"])
    apt.packages(name="packages that are not there", packages=["no-such-package"], present=False)

said = []
for shell in ("/bin/sh", "/bin/sh", "/bin/bash"):
    state = {"native": lambda: our_state(native=True), "shelled": lambda: our_state(native=False), "stock": stock_state}[sys.argv[2]]()
    played = play_in(state, lambda: accounts(shell))
    said += [played.made, played.failed, {name: Path("/etc", name).read_text() for name in ("passwd", "group", "shadow", "gshadow")}]
print(json.dumps(said))
"""


def test_accounts_and_packages_end_alike(tmp_path: Path) -> None:
    """On an /etc that is a copy."""
    said = {}
    for way in WAYS:
        (tmp_path / way).mkdir()
        done = subprocess.run(
            ["unshare", "--mount", sys.executable, "-c", _ON_ITS_OWN_ETC, tmp_path / way, way],
            env={**os.environ, "PYTHONPATH": f"{ENGINE}:{REPOSITORY}"}, cwd=REPOSITORY,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said[way] = json.loads(done.stdout.splitlines()[-1])
    assert said["native"] == said["stock"]
    assert said["shelled"] == said["stock"]
    assert said["stock"][:2] == [["a group", "a group that is gone", "an account", "one that is gone"], ""]
    assert said["stock"][3:5] == [[], ""]
    assert said["stock"][6:8] == [["an account"], ""]
