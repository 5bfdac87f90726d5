"""The environment of a release is built without root's rights, and is root's afterwards."""

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
from pyinfra_solo.operations.release.takeover import link_out, take_over
from tests.support.both_ways import ACL_FOR_NOBODY
from tests.support.programs import run as run_command
from tests.support.programs import wait_for
from tests.support.releases import Shop, changed, refused
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


def builds(shop: Shop, code: str) -> None:
    """The tip's lock file has a package without a wheel, whose build runs `code`."""
    asks(shop, ("built", "1.0", source_package(shop.root / "wheels", "built", code)))
    shop.options["build"] = True


@pytest.mark.parametrize("builder", BUILDERS)
def test_an_environment_works_where_it_is_and_needs_no_index(
    with_wheels: Shop, builder: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(builder, open_folder, monkeypatch)
    assert changed(with_wheels.release())
    assert run_command([with_wheels.current / ".venv/bin/alpha"]).stdout == "1.0\n"
    assert list(with_wheels.current.glob(".venv/lib/*/site-packages/alpha/__pycache__/*.pyc"))
    scripts = [
        path for path in with_wheels.current.glob(".venv/bin/*") if path.is_file() and not path.is_symlink()
    ]
    assert not any(b".building-" in path.read_bytes() for path in scripts)


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
    builds(shop, "pass")
    assert "cannot be made" in refused(shop.release(build=False))
    assert changed(shop.release())


class TestCodeOfPackages:
    """A .pth file, a sitecustomize and a build backend run with the rights of whoever starts python."""

    @pytest.fixture
    def spied(self, shop: Shop, open_folder: Path) -> Shop:
        """An environment of packages that write down who runs their code."""
        self.log = open_folder / "log"
        self.log.touch()
        self.log.chmod(0o666)
        spy = "import os; open({!r}, 'a').write('{} ' + str(os.getuid()) + '\\n')"
        names = {"spy.pth": "pth", "sitecustomize.py": "sitecustomize"}
        files = {name: spy.format(str(self.log), text) + "\n" for name, text in names.items()}
        sha = wheel(shop.root / "wheels", "alpha", files=files)
        built = source_package(shop.root / "wheels", "built", spy.format(str(self.log), "backend"))
        asks(shop, ("alpha", "1.0", sha), ("built", "1.0", built))
        shop.options["build"] = True
        return shop

    def seen(self) -> set[tuple[str, int]]:
        return {(what, int(uid)) for what, uid in map(str.split, self.log.read_text().splitlines())}

    @pytest.mark.parametrize("builder", BUILDERS)
    def test_runs_as_the_account_of_builds_and_never_as_root(
        self, spied: Shop, builder: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        use(builder, open_folder, monkeypatch)
        assert changed(spied.release())
        assert ("backend", account().pw_uid) in self.seen()
        assert {uid for _, uid in self.seen()} == {account().pw_uid}
        python = spied.current / ".venv/bin/python"
        run_command(["setpriv", "--reuid=nobody", "--clear-groups", python, "-c", ""])
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
        self, shop: Shop, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = open_folder / "environment"
        log.touch()
        log.chmod(0o666)
        code = f"open({str(log)!r}, 'w').write(repr((sorted(os.environ), os.getgroups(), os.listdir('/proc/self/fd'), open('/proc/self/status').read())))"
        builds(shop, code)
        secrets = {"NETRC", "AWS_SECRET_ACCESS_KEY", "UV_INDEX_X_PASSWORD", "SSH_AUTH_SOCK", "PYTHONPATH"}
        for name in secrets:
            monkeypatch.setenv(name, "hunter2")
        assert changed(shop.release())
        names, groups, descriptors, status = eval(log.read_text())  # noqa: S307 - a tuple of the test's own
        assert not secrets & set(names)
        assert groups in ([], [account().pw_gid])
        assert len(descriptors) <= 6
        assert "NoNewPrivs:\t1" in status

    def test_leaves_no_process(self, shop: Shop) -> None:
        builds(shop, _DAEMON)
        assert changed(shop.release())
        assert not _sleepers()

    def test_that_takes_too_long_is_ended_with_all_it_started(self, shop: Shop) -> None:
        builds(shop, _SLOW)
        assert "its time. Raise timeout of the release." in refused(shop.release(timeout=6))
        wait_for("the build's end", lambda: not _sleepers(), 5)

    @pytest.mark.parametrize(
        ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
    )
    def test_ends_with_the_run(self, shop: Shop, number: int, status: int) -> None:
        builds(shop, _SLOW)
        process = shop.start(shop.repository.tip())
        wait_for("the build", lambda: bool(_sleepers()), 60)
        os.killpg(process.pid, number)
        process.communicate(timeout=20)
        assert process.returncode == status
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
    assert run_command(["passwd", "--status", ACCOUNT]).stdout.split()[1] == "L"
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
        os.setxattr(built / "lib", name, ACL_FOR_NOBODY)
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

    @pytest.mark.parametrize(
        "target",
        [
            "/etc/passwd",
            "../../../outside",
            "/usr/bin/python3/../../../etc",
            "x/../../../../y",
            "../../loop/../../etc",
        ],
    )
    def test_a_link_out_of_it_is_found(self, built: Path, target: str) -> None:
        (built / "lib/inner/out").symlink_to(target)
        assert link_out(built, PYTHON) == "lib/inner/out"

    def test_a_link_to_the_base_python_or_within_is_none(self, built: Path) -> None:
        (built / "bin/python").symlink_to(PYTHON)
        (built / "bin/python3").symlink_to("python")
        (built / "bin/up").symlink_to("../lib/module.py")
        (built / "loop").symlink_to("loop")
        assert link_out(built, PYTHON) == ""
        assert link_out(built) in ("bin/python", "bin/python3")


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


def test_a_lock_is_for_root_alone_and_given_up_in_time(tmp_path: Path) -> None:
    """A descriptor that can only read is enough for flock(2) to hold up every release."""
    path = tmp_path / "lock"
    path.touch(0o644)
    with locked(path, 0), pytest.raises(LockedError, match=f"it holds {path}"), locked(path, 0):
        pass
    assert path.stat().st_mode & 0o777 == 0o600
