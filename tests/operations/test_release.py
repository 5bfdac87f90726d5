"""Releases of an application: whole or not there, whenever the run that makes one is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.clients import git_env as gitenv
from pyinfra_solo.errors import DataError
from pyinfra_solo.operations import release as app
from pyinfra_solo.operations import script
from tests.support.programs import wait_for
from tests.support.pyinfra_api import Played, play
from tests.support.repository import Repository
from tests.support.wheels import PYTHON, lock, wheel

MARKER = ".pyinfra-solo-release"
CUT_AT = ("mkdir", "mv", "ln", "rm", "sync", "find", "timeout", "git", "install", "ls")
"""The programs before whose every run a release is killed: between two of them nothing gets on disk."""


@dataclass
class Shop:
    """A repository of an app, and the folder in which its releases are made."""

    repository: Repository
    root: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        return self.root / "shop"

    @property
    def current(self) -> Path:
        return self.base / "current"

    def push(self, text: str, **more: str | bytes | None) -> str:
        """A commit whose page says `text`."""
        return self.repository.commit({"page.txt": text, "page.py": f"TEXT = {text!r}\n", **more}, text)

    def release(self, **options: Any) -> Played:
        """Once, through pyinfra."""
        wanted: dict[str, Any] = {
            "app": "shop",
            "repo": str(self.repository.path),
            "user": "nobody",
            "root": str(self.root),
            "requirements": None,
            "wheels": str(self.root / "wheels"),
            **self.options,
            **options,
        }
        return play(lambda: app.release(name="the shop is at its release", **wanted))

    def releases(self) -> list[str]:
        """Names in the folder of releases."""
        return sorted(path.name for path in (self.base / "releases").iterdir())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(Repository(tmp_path / "shop.git").make(), tmp_path / "srv")
    made.root.mkdir()
    made.push("one")
    return made


def made(played: Played) -> bool:
    """It changed something; a failure is an error of the test."""
    assert not played.failed, played.text
    return played.made == ("the shop is at its release",)


def refused(played: Played) -> str:
    assert played.failed == "the shop is at its release", played.text
    return played.text


def test_the_tip_of_a_branch_becomes_current(shop: Shop) -> None:
    sha = shop.repository.tip()
    assert made(shop.release())
    assert shop.current.is_symlink()
    assert shop.current.readlink() == Path("releases", sha[:12])
    assert (shop.current / "page.txt").read_text() == "one"
    assert (shop.current / MARKER).read_text() == f"{sha}\n"
    assert list(shop.current.glob("__pycache__/page.*.pyc")), "the app may not write its bytecode itself"


def test_the_app_owns_what_is_shared_and_nothing_else(shop: Shop) -> None:
    shop.release()
    assert (shop.base / "shared").owner() == "nobody"
    assert (shop.base / "shared").stat().st_mode & 0o777 == 0o750
    assert (shop.current / "page.txt").owner() == "root"


def test_a_second_time_changes_nothing(shop: Shop) -> None:
    shop.release()
    before = {path: path.lstat().st_mtime_ns for path in shop.base.rglob("*")}
    assert not made(shop.release())
    assert {path: path.lstat().st_mtime_ns for path in shop.base.rglob("*")} == before


def test_a_new_commit_becomes_current_and_the_one_before_stays(shop: Shop) -> None:
    first = shop.repository.tip()
    shop.release()
    second = shop.push("two")
    assert made(shop.release())
    assert (shop.current / "page.txt").read_text() == "two"
    assert (shop.base / "previous").readlink().name == first[:12]
    assert shop.releases() == sorted([first[:12], second[:12]])


def test_a_release_that_is_there_is_not_built_again(shop: Shop) -> None:
    first = shop.repository.tip()
    shop.release()
    shop.push("two")
    shop.release()
    built = (shop.base / "releases" / first[:12]).stat().st_ino
    assert made(shop.release(ref=first))
    assert (shop.current / "page.txt").read_text() == "one"
    assert shop.current.stat().st_ino == built


@pytest.mark.parametrize("message", ["", "a tag with a message"])
def test_a_tag_may_be_named(shop: Shop, message: str) -> None:
    first = shop.repository.tip()
    shop.repository.tag("v1.0", first, message=message)
    shop.push("two")
    assert made(shop.release(ref="v1.0"))
    assert (shop.current / MARKER).read_text() == f"{first}\n"


def test_a_commit_that_is_named_whole_asks_no_remote_once_it_is_there(shop: Shop) -> None:
    sha = shop.repository.tip()
    shop.release(ref=sha)
    shutil.rmtree(shop.repository.path)
    assert not made(shop.release(ref=sha))


def test_a_branch_of_another_folder_is_not_taken_for_the_branch(shop: Shop) -> None:
    shop.repository.branch("old/main", shop.push("two"))
    shop.repository.branch("main", shop.push("three"))
    shop.release()
    assert (shop.current / "page.txt").read_text() == "three"


def test_the_newest_are_kept_with_the_current_and_the_previous_one(shop: Shop) -> None:
    first = shop.repository.tip()
    shop.release(keep=2)
    ids = []
    for text in ("two", "three", "four"):
        ids.append(shop.push(text)[:12])
        shop.release(keep=2)
        time.sleep(0.02)  # the order is by mtime
    assert shop.releases() == sorted(ids[1:])
    shop.release(ref=first, keep=1)
    assert shop.releases() == sorted([first[:12], ids[2]])


def test_an_unknown_branch_is_an_error_even_with_a_release_to_stay_at(shop: Shop) -> None:
    shop.release()
    assert "has no branch or tag 'mian'. Push it, or name another." in refused(shop.release(ref="mian"))
    assert (shop.current / "page.txt").read_text() == "one"


def test_a_commit_that_the_repository_has_not_is_an_error(shop: Shop) -> None:
    assert "is not in" in refused(shop.release(ref="1" * 40))
    assert not shop.current.exists()


def test_without_git_the_machine_stays_at_its_release(shop: Shop) -> None:
    shop.release()
    shutil.rmtree(shop.repository.path)
    assert not made(shop.release())
    assert (shop.current / "page.txt").read_text() == "one"


def test_without_git_it_may_also_be_told_to_fail(shop: Shop) -> None:
    shop.release()
    shutil.rmtree(shop.repository.path)
    assert "did not answer" in refused(shop.release(offline="fail"))


def test_without_git_and_without_a_release_it_fails(shop: Shop) -> None:
    shutil.rmtree(shop.repository.path)
    assert "did not answer" in refused(shop.release())


def test_a_release_without_its_marker_is_not_believed(shop: Shop) -> None:
    shop.release()
    (shop.current / MARKER).unlink()
    (shop.current / "page.txt").write_text("half")
    assert made(shop.release())
    assert (shop.current / "page.txt").read_text() == "one"


def test_a_damaged_repository_is_made_anew(shop: Shop) -> None:
    shop.release()
    for pack in shop.base.glob("repo.git/objects/pack/*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(b"")
    shop.push("two")
    assert made(shop.release())
    assert (shop.current / "page.txt").read_text() == "two"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../..", "inner/../../../x", "loop/../../../../etc"])
def test_a_link_out_of_the_tree_is_refused_before_the_switch(shop: Shop, target: str, tmp_path: Path) -> None:
    shop.release()
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "link").symlink_to(target)
    shop.repository.copy_tree(tree)
    assert "the symlink inner/link points outside of the release" in refused(shop.release())
    assert (shop.current / "page.txt").read_text() == "one"
    assert len(shop.releases()) == 2, "the refused tree lies there until the next run; it is no release"
    shop.push("three", **{"inner/link": None})
    assert made(shop.release())
    assert all(not name.startswith(".") for name in shop.releases())


def test_a_link_within_the_tree_is_kept(shop: Shop, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "page.txt").write_text("linked")
    (tree / "inner" / "link").symlink_to("../page.txt")
    shop.repository.copy_tree(tree)
    assert made(shop.release())
    assert (shop.current / "inner/link").read_text() == "linked"


def test_a_tree_may_not_bring_its_own_marker(shop: Shop) -> None:
    shop.push("two", **{MARKER: "0" * 40})
    assert "brings a .venv" in refused(shop.release())


@pytest.mark.parametrize(
    "wrong",
    [
        {"app": "../etc"},
        {"app": "Shop"},
        {"app": ""},
        {"ref": "--upload-pack=x"},
        {"ref": "a..b"},
        {"ref": "a b"},
        {"repo": ""},
        {"repo": "--x"},
        {"repo": "https://u:hunter2@git.example.com/shop.git"},
        {"requirements": "../lock"},
        {"requirements": "/etc/lock"},
        {"keep": 0},
        {"offline": "maybe"},
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(shop: Shop, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError) as refusal:
        shop.release(**wrong)
    assert "hunter2" not in str(refusal.value)
    assert not shop.base.exists()


@pytest.fixture
def with_wheels(shop: Shop, tmp_path: Path) -> Shop:
    sha = wheel(shop.root / "wheels", "alpha")
    shop.push("one", **{"requirements.lock": lock(tmp_path / "lock", ("alpha", "1.0", sha)).read_text()})
    shop.options["requirements"] = "requirements.lock"
    return shop


def no_uv(tmp_path: Path) -> str:
    """A PATH on which there is everything but uv."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for tool in Path(place).iterdir():
            if tool.name not in ("uv", *(path.name for path in folder.iterdir())):
                (folder / tool.name).symlink_to(tool)
    return str(folder)


@pytest.mark.parametrize("how", ["uv", "pip"])
def test_its_environment_works_where_it_is_and_needs_no_index(
    with_wheels: Shop, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "pip":
        if subprocess.run([PYTHON, "-c", "import ensurepip"], check=False, capture_output=True).returncode:
            pytest.skip("python3-venv is not installed")
        monkeypatch.setenv("PATH", no_uv(tmp_path))
    assert made(with_wheels.release())
    said = subprocess.run(
        [with_wheels.current / ".venv/bin/alpha"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "1.0\n"
    assert list(with_wheels.current.glob(".venv/lib/*/site-packages/alpha/__pycache__/*.pyc"))
    scripts = [
        path.read_bytes() for path in (with_wheels.current / ".venv/bin").iterdir() if not path.is_symlink()
    ]
    assert not any(b".tmp-" in text for text in scripts)


def test_a_package_of_another_hash_is_not_installed(with_wheels: Shop, tmp_path: Path) -> None:
    with_wheels.release()
    text = lock(tmp_path / "lock", ("alpha", "1.0", "0" * 64)).read_text()
    with_wheels.push("two", **{"requirements.lock": text})
    assert "cannot be made" in refused(with_wheels.release())
    assert (with_wheels.current / "page.txt").read_text() == "one"


def test_a_tree_without_its_lock_file_is_refused(with_wheels: Shop) -> None:
    with_wheels.push("two", **{"requirements.lock": None})
    assert "there is no requirements.lock" in refused(with_wheels.release())


def apply(shop: Shop, sha: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The program that makes a release, alone, in a session of its own."""
    wheels = str(shop.root / "wheels")
    requirements = shop.options.get("requirements") or ""
    words = [str(shop.base), str(shop.repository.path), "main", "60"]
    words += [sha, "3", requirements, "nobody", PYTHON, wheels, "fail", "no"]
    command = script.run("release", "apply", *words, environment=gitenv.environment()).get_raw_value()
    return subprocess.Popen(
        ["sh", "-c", command],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


class Cuts:
    """A PATH whose programs count their runs, and kill the whole group before the n-th."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = folder / "count"
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for tool in CUT_AT:
            real = shutil.which(tool)
            path = self.bin / tool
            path.write_text(
                f"#!/bin/sh\nread n <{self.count}\nn=$((n + 1))\necho $n >{self.count}\n"
                f'[ "$n" != "$CUT" ] || kill -KILL 0\nexec {real} "$@"\n'
            )
            path.chmod(0o755)

    def run(self, shop: Shop, sha: str, cut: int) -> int:
        """Exit status of a run that is killed before its program number `cut`; none is 0."""
        self.count.write_text("0\n")
        process = apply(shop, sha, {"PATH": f"{self.bin}:{os.environ['PATH']}", "CUT": str(cut)})
        output, _ = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), output
        return process.returncode


def holds(shop: Shop, pages: dict[str, str]) -> None:
    """`current` is not there, or names a release that is all there."""
    if not shop.current.is_symlink():
        return
    sha = (shop.current / MARKER).read_text().strip()
    assert shop.current.readlink() == Path("releases", sha[:12])
    assert (shop.current / "page.txt").read_text() == pages[sha]
    if shop.options.get("requirements"):
        said = subprocess.run([shop.current / ".venv/bin/alpha"], capture_output=True, text=True, check=False)
        assert said.stdout == "1.0\n", said.stderr


def cut_everywhere(shop: Shop, folder: Path, sha: str, pages: dict[str, str]) -> int:
    """Kill a release before each of its programs, each time from the same beginning: how many."""
    cuts = Cuts(folder)
    beginning = folder / "beginning"
    shutil.copytree(shop.root, beginning, symlinks=True)
    cut, status = 0, -signal.SIGKILL
    while status != 0:
        cut += 1
        shutil.rmtree(shop.root)
        shutil.copytree(beginning, shop.root, symlinks=True)
        status = cuts.run(shop, sha, cut)
        holds(shop, pages)
        if status != 0:
            assert cuts.run(shop, sha, 0) == 0
        assert (shop.current / "page.txt").read_text() == pages[sha], f"after the cut {cut}"
        left = [path.name for path in (*shop.base.iterdir(), *(shop.base / "releases").iterdir())]
        assert not [name for name in left if name.startswith(".tmp-")], f"after the cut {cut}"
    return cut - 1


@pytest.mark.parametrize("from_nothing", [True, False])
def test_killed_anywhere_current_is_complete_and_the_next_run_ends_it(
    shop: Shop, tmp_path: Path, from_nothing: bool
) -> None:
    first = shop.repository.tip()
    if not from_nothing:
        shop.release()
    second = shop.push("two")
    points = cut_everywhere(shop, tmp_path / "cuts", second, {first: "one", second: "two"})
    assert points > 15, "the programs were cut"


@pytest.mark.soak
def test_killed_anywhere_with_an_environment(with_wheels: Shop, tmp_path: Path) -> None:
    first = with_wheels.repository.tip()
    with_wheels.release()
    second = with_wheels.push("two")
    assert cut_everywhere(with_wheels, tmp_path / "cuts", second, {first: "one", second: "two"}) > 15


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4, 0.8])
def test_killed_at_any_time_the_next_run_ends_it(with_wheels: Shop, seconds: float) -> None:
    first = with_wheels.repository.tip()
    with_wheels.release()
    second = with_wheels.push("two")
    process = apply(with_wheels, second)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    holds(with_wheels, {first: "one", second: "two"})
    made(with_wheels.release())
    assert (with_wheels.current / "page.txt").read_text() == "two"
    assert len(with_wheels.releases()) == 2


def test_two_runs_at_once_do_not_meet(shop: Shop) -> None:
    second = shop.push("two")
    runs = [apply(shop, second) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0], said
    assert sum("has built" in text for text in said) == 1
    assert shop.releases() == [second[:12]]


def test_a_remote_that_hangs_is_given_up(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.release()
    folder = tmp_path / "bin"
    folder.mkdir()
    hang: Callable[[], bool] = (tmp_path / "asked").exists
    (folder / "git").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep 300\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    started = time.monotonic()
    assert not made(shop.release(timeout=2))
    assert time.monotonic() - started < 20
    wait_for("git was asked", hang, 5)
