"""Releases of an application: whole or not there, whenever the run that makes one is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo import paths
from pyinfra_solo.errors import DataError
from pyinfra_solo.operations.release import bundle
from pyinfra_solo.operations.release.releases import MARKER
from pyinfra_solo.system import kept
from pyinfra_solo.system.kept import Kept
from tests.support.programs import is_alive, wait_for
from tests.support.programs import run as run_command
from tests.support.releases import Shop, changed, refused

WAYS = ("ours", "shell", "pyinfra")


@pytest.mark.parametrize("how", WAYS)
def test_the_tip_of_a_branch_becomes_current(shop: Shop, how: str) -> None:
    sha = shop.repository.tip()
    assert changed(shop.release(how=how))
    assert shop.current.is_symlink()
    assert shop.current.readlink() == Path("releases", sha[:12])
    assert shop.page() == "one"
    assert (shop.current / MARKER).read_text() == f"{sha}\n"
    assert list(shop.current.glob("__pycache__/page.*.pyc")), "the app may not write its bytecode itself"


def test_the_app_owns_shared_and_nothing_else(shop: Shop) -> None:
    shop.release()
    assert (shop.base / "shared").owner() == "nobody"
    assert (shop.base / "shared").stat().st_mode & 0o777 == 0o750
    assert (shop.current / "page.txt").owner() == "root"


@pytest.mark.parametrize("how", WAYS)
def test_a_second_time_changes_nothing(shop: Shop, how: str) -> None:
    shop.release()
    before = {path: path.lstat().st_mtime_ns for path in shop.base.rglob("*")}
    assert not changed(shop.release(how=how))
    assert {path: path.lstat().st_mtime_ns for path in shop.base.rglob("*")} == before


def test_a_new_commit_becomes_current_and_the_one_before_stays(shop: Shop) -> None:
    first = shop.repository.tip()
    shop.release()
    second = shop.push("two")
    assert changed(shop.release())
    assert shop.page() == "two"
    assert (shop.base / "previous").readlink().name == first[:12]
    assert shop.releases() == sorted([first[:12], second[:12]])


def test_a_complete_release_is_not_built_a_second_time(shop: Shop) -> None:
    first = shop.repository.tip()
    shop.release()
    shop.push("two")
    shop.release()
    built = (shop.base / "releases" / first[:12]).stat().st_ino
    assert changed(shop.release(ref=first))
    assert shop.page() == "one"
    assert shop.current.stat().st_ino == built


@pytest.mark.parametrize("message", ["", "a tag with a message"])
def test_a_tag_may_be_named(shop: Shop, message: str) -> None:
    first = shop.repository.tip()
    shop.repository.tag("v1.0", first, message=message)
    shop.push("two")
    assert changed(shop.release(ref="v1.0"))
    assert (shop.current / MARKER).read_text() == f"{first}\n"


def test_a_branch_wins_over_a_tag_of_its_name(shop: Shop) -> None:
    shop.repository.tag("main", shop.repository.tip())
    shop.push("two")
    shop.release()
    assert shop.page() == "two"


def test_a_full_commit_id_asks_no_remote_once_it_is_built(shop: Shop) -> None:
    sha = shop.repository.tip()
    shop.release(ref=sha)
    shutil.rmtree(shop.repository.path)
    assert not changed(shop.release(ref=sha))


def test_a_commit_that_the_server_does_not_offer_is_fetched(shop: Shop) -> None:
    """uploadpack.allowAnySHA1InWant is off on most servers: then all refs are fetched."""
    first = shop.repository.tip()
    shop.push("two")
    (shop.repository.path / "config").write_text("[core]\n\tbare = true\n")
    assert changed(shop.release(ref=first))
    assert shop.page() == "one"


def test_a_branch_of_another_folder_is_not_taken_for_the_branch(shop: Shop) -> None:
    shop.repository.branch("old/main", shop.push("two"))
    shop.repository.branch("main", shop.push("three"))
    shop.release()
    assert shop.page() == "three"


def test_the_newest_stay_with_the_current_and_the_previous_one(shop: Shop) -> None:
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


def test_an_unknown_branch_is_an_error_whatever_is_current(shop: Shop) -> None:
    shop.release()
    assert "has no branch or tag 'mian'. Push it, or name another." in refused(shop.release(ref="mian"))
    assert shop.page() == "one"


@pytest.mark.parametrize("offline", ["keep", "fail"])
def test_a_commit_that_the_repository_lacks_is_an_error(shop: Shop, offline: str) -> None:
    shop.release()
    assert "is not in" in refused(shop.release(ref="1" * 40, offline=offline))
    assert shop.page() == "one"


class TestWithoutGit:
    """A release that is not the wanted one is never a success, and never restarts a service."""

    @pytest.fixture
    def gone(self, shop: Shop) -> Shop:
        """It has a release, and its remote does not answer."""
        shop.release()
        self.sha = shop.repository.tip()
        shop.repository.path.rename(shop.repository.path.with_name("gone.git"))
        return shop

    @pytest.fixture
    def cut(self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
        """It has a release, and git fails after it has named the next commit."""
        shop.release()
        self.sha, self.next = shop.repository.tip(), shop.push("two")
        cut = 'case " $* " in *" fetch "*) echo "fatal: cut off" >&2; exit 128 ;; esac'
        _put_git(tmp_path, f'{cut}\nexec {shutil.which("git")} "$@"', monkeypatch)
        return shop

    @pytest.mark.parametrize("how", WAYS)
    def test_a_branch_keeps_its_release_and_warns(
        self, gone: Shop, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert not changed(gone.release(how=how))
        assert gone.page() == "one"
        line = f"shop: kept at {self.sha[:12]} instead of main: "
        assert [one for one in caplog.messages if line in one]
        found = kept.read(paths.RUN / "kept")
        assert [(one.app, one.current, one.wanted) for one in found] == [("shop", self.sha, "main")]
        assert str(found[0]) == f"{line}{found[0].reason}"
        assert "does not appear to be a git repository" in found[0].reason

    @pytest.mark.parametrize("how", WAYS)
    def test_a_connection_cut_after_the_check_changes_nothing(
        self, cut: Shop, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert not changed(cut.release(how=how))
        assert cut.page() == "one"
        line = f"shop: kept at {self.sha[:12]} instead of {self.next[:12]}: fatal: cut off"
        assert [one for one in caplog.messages if line in one]
        assert kept.read(paths.RUN / "kept") == [Kept("shop", self.sha, self.next, "fatal: cut off")]
        assert cut.releases() == [self.sha[:12]]

    @pytest.mark.parametrize("text", ["one", "two"], ids=["current", "made"])
    def test_the_record_goes_with_the_wanted_release(self, gone: Shop, text: str) -> None:
        gone.release()
        gone.repository.path.with_name("gone.git").rename(gone.repository.path)
        if text == "two":
            gone.push(text)
        assert changed(gone.release()) is (text == "two")
        assert not kept.read(paths.RUN / "kept")

    def test_a_full_commit_id_is_an_error(self, gone: Shop) -> None:
        text = refused(gone.release(ref="1" * 40))
        assert f"shop: 111111111111 ({'1' * 40}) cannot be fetched: fatal: " in text
        assert f"The release {self.sha[:12]} stays. Check that this machine can reach and read" in text
        assert not kept.read(paths.RUN / "kept")

    def test_a_full_commit_id_may_keep_when_that_is_asked_for(self, gone: Shop) -> None:
        assert not changed(gone.release(ref="1" * 40, offline="keep"))
        assert kept.read(paths.RUN / "kept")[0].wanted == "1" * 40

    def test_a_branch_may_fail_when_that_is_asked_for(self, gone: Shop) -> None:
        text = refused(gone.release(offline="fail"))
        assert "did not answer (fatal: " in text
        assert f"the commit of 'main' is unknown, and the release {self.sha[:12]} stays" in text

    def test_without_a_release_it_fails(self, shop: Shop) -> None:
        shutil.rmtree(shop.repository.path)
        assert "there is no release" in refused(shop.release())

    def test_a_remote_that_hangs_is_given_up(
        self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With all that git has started."""
        shop.release()
        _put_git(tmp_path, f"sleep 300 & echo $! >{tmp_path}/child\nwait", monkeypatch)
        started = time.monotonic()
        assert not changed(shop.release(timeout=2))
        assert time.monotonic() - started < 20
        assert "no answer in 2 s" in kept.read(paths.RUN / "kept")[0].reason
        wait_for("git's child to end", lambda: not is_alive(int((tmp_path / "child").read_text())), 5)


def _put_git(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script in git's place."""
    path = folder / "bin/git"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def test_a_release_without_its_marker_is_not_believed(shop: Shop) -> None:
    shop.release()
    (shop.current / MARKER).unlink()
    (shop.current / "page.txt").write_text("half")
    assert changed(shop.release())
    assert shop.page() == "one"


def test_a_damaged_repository_is_made_anew(shop: Shop) -> None:
    """All kinds of damage: tests/clients/test_git.py."""
    shop.release()
    (path,) = shop.base.glob("repo.git/objects/pack/*.pack")
    path.chmod(0o600)
    path.write_bytes(b"")
    shop.push("two")
    assert changed(shop.release())
    assert shop.page() == "two"


def test_a_link_out_of_the_tree_is_refused(shop: Shop, tmp_path: Path) -> None:
    shop.release()
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "link").symlink_to("../../..")
    shop.repository.copy_tree(tree)
    assert "the symlink inner/link points outside of the release" in refused(shop.release())
    assert shop.page() == "one"
    assert len(shop.releases()) == 1, "nothing of the refused tree is written"
    shop.push("three", **{"inner/link": None})
    assert changed(shop.release())
    assert all(not name.startswith(".") for name in shop.releases())


@pytest.mark.parametrize("name", [MARKER, ".venv/pyvenv.cfg"])
def test_a_tree_may_not_bring_what_a_release_adds(shop: Shop, name: str) -> None:
    shop.push("two", **{name: "0" * 40})
    assert "brings a .venv" in refused(shop.release())


@pytest.mark.parametrize(
    "wrong",
    [
        {"app": "../etc"}, {"app": "Shop"}, {"app": ""}, {"ref": "--upload-pack=x"}, {"ref": "a..b"}, {"ref": "a b"},
        {"repo": ""}, {"repo": "--x"}, {"repo": "https://u:hunter2@git.example.com/shop.git"}, {"keep": 0},
        {"requirements": "../lock"}, {"requirements": "/etc/lock"}, {"offline": "maybe"},
    ],
)  # fmt: skip
def test_an_invalid_value_is_refused_before_anything_runs(shop: Shop, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError) as refusal:
        shop.release(**wrong)
    assert "hunter2" not in str(refusal.value)
    assert not shop.base.exists()


def test_an_unknown_user_is_named(shop: Shop) -> None:
    assert "there is no user nosuch. Create it before the release." in refused(shop.release(user="nosuch"))


def test_a_full_disk_is_named(shop: Shop) -> None:
    shop.push("two", large=os.urandom(3_000_000))
    run_command(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", shop.root])
    try:
        assert f"shop: the disk is full at {shop.base}. Make room there." in refused(shop.release())
        run_command(["mount", "-o", "remount,size=50m", shop.root])
        assert changed(shop.release())
        shop.push("three", large=os.urandom(60_000_000))
        assert "the disk is full" in refused(shop.release()), "it is no reason to keep a release"
        assert shop.page() == "two"
    finally:
        run_command(["umount", shop.root])


def test_two_runs_at_once_do_not_meet(shop: Shop) -> None:
    second = shop.push("two")
    runs = [shop.start(second) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0], outputs
    assert sum("has built" in text for text in outputs) == 1
    assert shop.releases() == [second[:12]]


_CUT = """\
import os, signal, sys
events = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.symlink", "os.chmod", "os.chown", "subprocess.Popen"}
count, program = 0, os.getpid()
def cut(event, arguments):
    global count
    writes = event == "open" and str(arguments[0]).startswith(os.environ["BASE"]) and arguments[2] & 3
    if event in events or writes:
        count += 1
        if str(count) == os.environ["CUT"] and os.getpid() == program:
            os.killpg(0, signal.SIGKILL)
sys.addaudithook(cut)
"""
"""Kills the program before the n-th of its calls that change something on disk, or start a program."""


def _run_until(shop: Shop, sha: str, cut: int) -> int:
    process = shop.start(sha, prelude=_CUT, BASE=str(shop.base), CUT=str(cut))
    output, _ = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), output
    return process.returncode


def _holds(shop: Shop, pages: dict[str, str]) -> None:
    """`current` is not there, or names a release that is all there."""
    if not shop.current.is_symlink():
        return
    sha = (shop.current / MARKER).read_text().strip()
    assert shop.current.readlink() == Path("releases", sha[:12])
    assert shop.page() == pages[sha]
    if shop.options.get("requirements"):
        done = subprocess.run([shop.current / ".venv/bin/alpha"], capture_output=True, text=True, check=False)
        assert done.stdout == "1.0\n", done.stderr


def _cut_everywhere(shop: Shop, folder: Path, sha: str, pages: dict[str, str]) -> int:
    """Kill a release before each change that it makes, each time from the same beginning: how many."""
    beginning = folder / "beginning"
    shutil.copytree(shop.root, beginning, symlinks=True)
    cut, status = 0, -signal.SIGKILL
    while status != 0:
        cut += 1
        shutil.rmtree(shop.root)
        shutil.copytree(beginning, shop.root, symlinks=True)
        status = _run_until(shop, sha, cut)
        _holds(shop, pages)
        if status != 0:
            assert _run_until(shop, sha, 0) == 0
        assert shop.page() == pages[sha], f"after the cut {cut}"
        left = [path.name for path in (*shop.base.iterdir(), *(shop.base / "releases").iterdir())]
        assert [name for name in left if name.startswith(".")] == [".lock"], f"after the cut {cut}"
    return cut - 1


@pytest.mark.parametrize("from_nothing", [True, False])
def test_killed_anywhere_current_is_complete(shop: Shop, tmp_path: Path, from_nothing: bool) -> None:
    """And the next run ends what was begun."""
    first = shop.repository.tip()
    if not from_nothing:
        shop.release()
    second = shop.push("two")
    points = _cut_everywhere(shop, tmp_path, second, {first: "one", second: "two"})
    assert points > 15, "the run was cut"


@pytest.mark.soak
def test_killed_anywhere_with_an_environment(with_wheels: Shop, tmp_path: Path) -> None:
    first = with_wheels.repository.tip()
    with_wheels.release()
    second = with_wheels.push("two")
    assert _cut_everywhere(with_wheels, tmp_path, second, {first: "one", second: "two"}) > 15


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4, 0.8])
def test_killed_at_any_time_the_next_run_ends_it(with_wheels: Shop, seconds: float) -> None:
    first = with_wheels.repository.tip()
    with_wheels.release()
    second = with_wheels.push("two")
    process = with_wheels.start(second)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    _holds(with_wheels, {first: "one", second: "two"})
    changed(with_wheels.release())
    assert with_wheels.page() == "two"
    assert len(with_wheels.releases()) == 2


def test_the_program_needs_nothing_but_python_and_git() -> None:
    """A push over SSH sends it to machines that have no engine."""
    command = bundle.command("check", "{}").get_raw_value()
    assert len(command) < 100_000, "one argument has 128 KiB at most (execve(2))"
    modules = {path.stem for path in Path(bundle.__file__).parent.glob("[a-z]*.py")} - {"bundle"}
    own = {name for name in bundle.MODULES if name.startswith("operations.release")}
    assert own == {f"operations.release.{name}" for name in modules}
    loader = bundle.source().replace("sys.exit(module", "print(*sys.modules)  #")
    done = subprocess.run(["python3", "-I", "-S", "-c", loader], capture_output=True, text=True, check=True)
    foreign = {name.partition(".")[0] for name in done.stdout.split()} - {"pyinfra_solo", "__main__"}
    assert foreign <= sys.stdlib_module_names


def test_a_machine_without_python_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    words = ["/bin/sh", "-c", bundle.command("check", "{}").get_raw_value()]
    done = run_command(words, env={"PATH": str(tmp_path)}, check=False).expect(1)
    assert "no Python 3.11 or later" in done.stderr
