"""The environment of a release is built without root's rights, and is root's afterwards."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pyinfra_solo.errors import LockedError, TrustError
from pyinfra_solo.operations.release.environment import ACCOUNT, account
from pyinfra_solo.operations.release.releases import locked
from pyinfra_solo.operations.release.takeover import leads_out, take_over
from tests.support.both_ways import ACL_FOR_NOBODY
from tests.support.programs import wait_for
from tests.support.releases import Shop, Spies, changed, refused
from tests.support.wheels import PYTHON, ZERO, lock, source_package, wheel

NEEDS_VENV = pytest.mark.skipif(
    subprocess.run([PYTHON, "-c", "import ensurepip"], check=False, capture_output=True).returncode != 0,
    reason="python3-venv is not installed",
)
BUILDERS = ["uv", pytest.param("pip", marks=NEEDS_VENV)]
SLEEP = "86399.5"
"""Of the processes that builds leave behind: no other has this argument."""


def use(builder: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """For pip: a PATH on which there is everything but uv."""
    if builder == "uv":
        return
    found = folder / "bin"
    found.mkdir()
    for place in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for tool in Path(place).iterdir():
            if tool.name != "uv" and not (found / tool.name).is_symlink():
                (found / tool.name).symlink_to(tool)
    patch.setenv("PATH", str(found))


def asks(shop: Shop, *pins: tuple[str, str, str]) -> None:
    """The tip's lock file has these pins."""
    path = lock(shop.root / "lock", *pins)
    shop.push("asks", **{"requirements.lock": path.read_text()})
    shop.options["requirements"] = "requirements.lock"


@pytest.mark.parametrize("builder", BUILDERS)
def test_an_environment_works_where_it_is_and_needs_no_index(
    with_wheels: Shop, builder: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(builder, open_folder, monkeypatch)
    assert changed(with_wheels.release())
    done = subprocess.run(
        [with_wheels.current / ".venv/bin/alpha"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1.0\n"
    assert list(with_wheels.current.glob(".venv/lib/*/site-packages/alpha/__pycache__/*.pyc"))
    scripts = [
        path.read_bytes()
        for path in (with_wheels.current / ".venv/bin").iterdir()
        if path.is_file() and not path.is_symlink()
    ]
    assert not any(b".building-" in text for text in scripts)


def test_a_package_of_another_hash_is_not_installed(with_wheels: Shop) -> None:
    with_wheels.release()
    asks(with_wheels, ("alpha", "1.0", ZERO))
    text = refused(with_wheels.release())
    assert "cannot be made: alpha==1.0 is not what requirements.lock was locked to" in text
    assert with_wheels.page() == "one"


def test_a_tree_without_its_lock_file_is_refused(with_wheels: Shop) -> None:
    with_wheels.push("two", **{"requirements.lock": None})
    assert "there is no requirements.lock" in refused(with_wheels.release())


def test_a_package_without_a_wheel_needs_build(shop: Shop) -> None:
    asks(shop, ("built", "1.0", source_package(shop.root / "wheels", "built", "pass")))
    assert "cannot be made" in refused(shop.release())
    assert changed(shop.release(build=True))


class TestCodeOfPackages:
    """A .pth file, a sitecustomize and a build backend run with the rights of whoever starts python."""

    @pytest.fixture
    def spied(self, shop: Shop, spies: Spies) -> Shop:
        """An environment of packages that tell who runs their code."""
        self.spies = spies
        pth, site, backend = (
            self.spies.code(f"'{what} ' + str(os.getuid())") for what in ("pth", "sitecustomize", "backend")
        )
        sha = wheel(shop.root / "wheels", "alpha", files={"spy.pth": f"{pth}\n", "sitecustomize.py": site})
        built = source_package(shop.root / "wheels", "built", backend)
        asks(shop, ("alpha", "1.0", sha), ("built", "1.0", built))
        shop.options["build"] = True
        return shop

    def seen(self) -> set[tuple[str, int]]:
        return {(what, int(uid)) for what, uid in map(str.split, self.spies.heard())}

    @pytest.mark.parametrize("builder", BUILDERS)
    def test_runs_as_the_account_of_builds_and_never_as_root(
        self, spied: Shop, builder: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(builder, open_folder, monkeypatch)
        assert changed(spied.release())
        seen = self.seen()
        assert ("backend", account().pw_uid) in seen
        assert {uid for _, uid in seen} == {account().pw_uid}
        subprocess.run(
            ["setpriv", "--reuid=nobody", "--clear-groups", spied.current / ".venv/bin/python", "-c", ""],
            check=True,
        )
        nobody = pwd.getpwnam("nobody").pw_uid
        assert ("pth", nobody) in self.seen(), "the spies work; Debian has a sitecustomize of its own"

    def test_runs_as_the_account_also_in_an_environment_that_is_filled(self, spied: Shop) -> None:
        """A missing wheel makes the builder come back to an environment that a first call has begun."""
        asks(spied, *_pins(spied), ("missing", "1.0", ZERO))
        refused(spied.release())
        assert 0 not in {uid for _, uid in self.seen()}

    def test_leaves_everything_to_root(self, spied: Shop) -> None:
        spied.release()
        for path in (spied.current.resolve(), *spied.current.resolve().rglob("*")):
            about = path.lstat()
            assert (about.st_uid, about.st_gid) == (0, 0), path
            assert path.is_symlink() or not about.st_mode & 0o7022, path

    def test_finds_no_credential_and_no_descriptor(
        self, shop: Shop, spies: Spies, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = spies.code(
            "repr((sorted(os.environ), os.getgroups(), os.listdir('/proc/self/fd'), open('/proc/self/status').read()))"
        )
        sha = source_package(shop.root / "wheels", "built", code)
        asks(shop, ("built", "1.0", sha))
        for name in ("NETRC", "AWS_SECRET_ACCESS_KEY", "UV_INDEX_X_PASSWORD", "SSH_AUTH_SOCK", "PYTHONPATH"):
            monkeypatch.setenv(name, "hunter2")
        assert changed(shop.release(build=True))
        names, groups, descriptors, status = eval(spies.heard()[-1])  # noqa: S307 - a tuple of the test's own
        assert not {"NETRC", "AWS_SECRET_ACCESS_KEY", "UV_INDEX_X_PASSWORD", "SSH_AUTH_SOCK"} & set(names)
        assert "PYTHONPATH" not in names
        assert len(groups) <= 1
        assert account().pw_gid not in groups
        assert len(descriptors) <= 6
        assert "NoNewPrivs:\t1" in status

    def test_leaves_no_process(self, shop: Shop) -> None:
        asks(shop, ("built", "1.0", source_package(shop.root / "wheels", "built", _DAEMON)))
        assert changed(shop.release(build=True))
        assert not _sleepers()

    def test_leaves_no_process_when_the_program_is_killed(self, shop: Shop) -> None:
        sha = source_package(shop.root / "wheels", "built", _SLOW)
        asks(shop, ("built", "1.0", sha))
        shop.options["build"] = True
        process = shop.start(shop.repository.tip())
        wait_for("the build", lambda: bool(_sleepers()), 60)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
        wait_for("the build's end", lambda: not _sleepers(), 10)

    def test_that_takes_too_long_is_ended_with_all_it_started(self, shop: Shop) -> None:
        sha = source_package(shop.root / "wheels", "built", _SLOW)
        asks(shop, ("built", "1.0", sha))
        assert "its time. Raise timeout of the release." in refused(shop.release(build=True, timeout=6))
        wait_for("the build's end", lambda: not _sleepers(), 5)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_ends_with_the_run(self, shop: Shop, number: int) -> None:
        sha = source_package(shop.root / "wheels", "built", _SLOW)
        asks(shop, ("built", "1.0", sha))
        shop.options["build"] = True
        process = shop.start(shop.repository.tip())
        wait_for("the build", lambda: bool(_sleepers()), 60)
        os.killpg(process.pid, number)
        process.communicate(timeout=20)
        assert process.returncode == 128 + number
        wait_for("the build's end", lambda: not _sleepers(), 5)


_DAEMON = f"subprocess.Popen(['setsid', 'setsid', 'sleep', '{SLEEP}'], stdin=-3, stdout=-3, stderr=-3)"
_SLOW = f"{_DAEMON}; subprocess.run(['sleep', '60'])"


def _pins(shop: Shop) -> list[tuple[str, str, str]]:
    words = (shop.root / "lock").read_text().replace("\\\n", "").splitlines()
    return [(one.split("==")[0], "1.0", one.rpartition(":")[2]) for one in words]


def _sleepers() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", SLEEP.encode()]:
                found.append(int(path.parent.name))
    return found


def test_the_account_is_of_no_use_to_anyone() -> None:
    made = account()
    assert made.pw_name == ACCOUNT
    assert made.pw_uid != 0
    assert made.pw_shell.endswith(("nologin", "false"))
    assert made.pw_dir == "/nonexistent"
    assert (
        subprocess.run(
            ["passwd", "--status", ACCOUNT], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        == "L"
    )
    assert account() == made


class TestTakingOver:
    @pytest.fixture
    def built(self, open_folder: Path) -> Path:
        """A folder that the account of builds has filled."""
        folder = open_folder / "built"
        (folder / "lib/inner").mkdir(parents=True)
        (folder / "lib/module.py").write_text("x = 1\n")
        (folder / "bin").mkdir()
        (folder / "bin/run").write_text("#!/bin/sh\n")
        (folder / "bin/run").chmod(0o777)
        (folder / "bin/link").symlink_to("run")
        give(folder)
        return folder

    def test_gives_all_of_it_to_root(self, built: Path) -> None:
        take_over(built, account().pw_uid)
        modes = {
            path.name: path.lstat().st_mode & 0o7777 for path in built.rglob("*") if not path.is_symlink()
        }
        assert modes == {"lib": 0o755, "inner": 0o755, "bin": 0o755, "module.py": 0o644, "run": 0o755}
        assert {(path.lstat().st_uid, path.lstat().st_gid) for path in (built, *built.rglob("*"))} == {(0, 0)}

    @pytest.mark.parametrize(
        ("put", "problem"),
        [
            (os.mkfifo, "a device, a socket or a pipe"),
            (lambda path: os.mknod(path, 0o020666, os.makedev(1, 3)), "a device, a socket or a pipe"),
            (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "a device, a socket or a pipe"),
            (lambda path: os.link(path.parents[2] / "foreign", path), "is a hard link"),
            (Path.touch, "a setuid or setgid bit"),
            (Path.mkdir, "a setuid or setgid bit"),
        ],
        ids=["fifo", "device", "socket", "hard link", "setuid", "setgid folder"],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_refuses_what_a_package_never_needs(
        self, built: Path, put: Callable[[Path], object], problem: str
    ) -> None:
        (built.parent / "foreign").touch()
        path = built / "lib/odd"
        put(path)
        os.chown(path, account().pw_uid, account().pw_gid)
        if "bit" in problem:  # chown(2) takes them away
            path.chmod(path.stat().st_mode | 0o6000)
        with pytest.raises(TrustError, match=problem):
            take_over(built, account().pw_uid)

    def test_refuses_another_accounts_file(self, built: Path) -> None:
        os.chown(built / "lib/module.py", 65534, 65534)
        with pytest.raises(TrustError, match="belongs to the account 65534"):
            take_over(built, account().pw_uid)

    def test_refuses_a_folder_that_is_a_link(self, built: Path) -> None:
        (built.parent / "link").symlink_to(built)
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            take_over(built.parent / "link", account().pw_uid)

    def test_refuses_a_tree_that_is_too_deep_to_remove(self, built: Path) -> None:
        deep = built / "/".join(["d"] * 70)
        deep.mkdir(parents=True)
        give(built)
        with pytest.raises(TrustError, match="folders deep"):
            take_over(built, account().pw_uid)

    def test_takes_access_lists_away(self, built: Path) -> None:
        """A default one would give new files, such as bytecode, to the account."""
        name = "system.posix_acl_default"
        try:
            os.setxattr(built / "lib", name, ACL_FOR_NOBODY)
        except OSError:
            pytest.skip("no access lists here")
        take_over(built, account().pw_uid)
        assert name not in os.listxattr(built / "lib")

    def test_cannot_be_led_to_another_file_meanwhile(self, built: Path) -> None:
        """A process of the account swaps a file, a folder and a link as fast as it can."""
        victims = built.parent / "victims"
        victims.mkdir()
        (victims / "module.py").write_text("secret")
        (victims / "module.py").chmod(0o600)
        for path in (victims, victims / "module.py"):
            os.chown(path, 65534, 65534)
        for _ in range(20):
            swapper = subprocess.Popen(
                ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups",
                 PYTHON, "-c", _SWAP, str(built), str(victims)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert swapper.stdout
            swapper.stdout.read(1)
            time.sleep(0.01)
            with suppress(TrustError, OSError):
                take_over(built, account().pw_uid)
                assert not [path for path in built.rglob("*") if path.lstat().st_uid]
            swapper.kill()
            swapper.communicate()
            for path in (victims, victims / "module.py"):
                assert path.stat().st_uid == 65534
            assert (victims / "module.py").stat().st_mode & 0o777 == 0o600
            give(built)

    @pytest.mark.parametrize("target", ["/etc/passwd", PYTHON, "../../../../outside"])
    def test_refuses_a_link_out_of_the_tree(self, built: Path, target: str) -> None:
        (built / "lib/inner/out").symlink_to(target)
        give(built)
        with pytest.raises(TrustError, match="lib/inner/out is a link that leads out of the release"):
            take_over(built, account().pw_uid, [PYTHON])

    def test_allows_links_to_the_base_python_and_within_the_tree(self, built: Path) -> None:
        (built / "bin/python").symlink_to(PYTHON)
        (built / "bin/python3").symlink_to("python")
        (built / "lib/loop").symlink_to("loop")
        (built / "lib/page").symlink_to("../../page.txt")
        give(built)
        take_over(built, account().pw_uid, [PYTHON])


@pytest.mark.parametrize(
    ("target", "depth", "out"),
    [
        ("page", 0, False),
        ("./a//b/", 0, False),
        ("../a", 1, False),
        (".././../a", 2, False),
        ("../a", 0, True),
        ("../../a", 1, True),
        ("/", 9, True),
        ("a/..", 9, True),
        ("../a/../b", 9, True),
        ("..", 0, True),
    ],
)
def test_a_link_leads_out_by_its_text_alone(target: str, depth: int, out: bool) -> None:
    """What it passes could be swapped between a check and a use."""
    assert leads_out(target, depth) is out


_SWAP = """\
import os, sys
built, victims = sys.argv[1:]
os.chdir(built + "/lib")
print("ready", flush=True)
while True:
    for name, target in (("module.py", victims + "/module.py"), ("inner", victims)):
        try:
            os.rename(name, ".aside")
            os.symlink(target, name)
            os.unlink(name)
            os.rename(".aside", name)
        except OSError:
            pass
"""


def give(path: Path) -> None:
    """To the account of builds, with all that it holds."""
    for one in (path, *path.rglob("*")):
        os.chown(one, account().pw_uid, account().pw_gid, follow_symlinks=False)


def test_the_lock_of_releases_is_for_root_alone(shop: Shop) -> None:
    """A descriptor that can only read is enough for flock(2) to hold up every run."""
    shop.base.mkdir()
    (shop.base / ".lock").touch(0o644)
    shop.release()
    assert (shop.base / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_held_is_given_up_in_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, 0), pytest.raises(LockedError, match=f"it holds {path}"), locked(path, 0):
        pass
