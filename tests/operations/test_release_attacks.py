"""What a commit or a package's code may try against a release, and against the machine."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyinfra_solo.errors import TrustError
from pyinfra_solo.operations.release.environment import ACCOUNT, account, end_all
from pyinfra_solo.operations.release.takeover import DEEPEST, take_over
from tests.support.programs import run as run_command
from tests.support.programs import wait_for
from tests.support.releases import Shop, Spies, changed, refused
from tests.support.wheels import PYTHON, lock, source_package

AS_ACCOUNT = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups"]
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def asks(shop: Shop, code: str) -> None:
    """The tip's lock file has a package that runs `code` when it is built."""
    sha = source_package(shop.root / "wheels", "evil", code)
    text = lock(shop.root / "lock", ("evil", "1.0", sha)).read_text()
    shop.push("asks", **{"requirements.lock": text})
    shop.options |= {"requirements": "requirements.lock", "build": True}


def test_a_link_into_shared_is_refused_though_it_ends_inside(shop: Shop, tmp_path: Path) -> None:
    """The app owns `shared`, and could swap the rest of the way while root writes bytecode."""
    shop.release()
    back = shop.base / "shared/back"
    back.symlink_to(f"../releases/{shop.releases()[0]}")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "__pycache__").symlink_to("../../shared/back")
    shop.repository.copy_tree(tree)
    assert "the symlink __pycache__ points outside of the release" in refused(shop.release())


@pytest.mark.parametrize("depth", [DEEPEST + 1, 1200])
def test_a_deep_tree_is_refused_and_keeps_no_later_commit_out(shop: Shop, depth: int) -> None:
    first = shop.repository.tip()
    git = ["git", f"--git-dir={shop.repository.path}"]

    def made(*words: str, given: str) -> str:
        done = subprocess.run([*git, *words], input=given, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    tree = made("mktree", given=f"100644 blob {made('hash-object', '-w', '--stdin', given='x')}\tf\n")
    for _ in range(depth):
        tree = made("mktree", given=f"040000 tree {tree}\td\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    sha = subprocess.run(
        [*git, *who, "commit-tree", tree, "-m", "deep"], capture_output=True, text=True, check=True
    ).stdout.strip()
    shop.repository.branch("main", sha)
    assert f"is more than {DEEPEST} folders deep" in refused(shop.release())
    shop.repository.branch("main", first)
    shop.push("two")
    assert changed(shop.release())
    assert shop.page() == "two"


def test_commit_that_unpacks_to_more_than_the_limit_is_never_unpacked(shop: Shop) -> None:
    """A commit of 100 KiB can have files of many GiB. Root's fetch of the next run needs the room."""
    shop.push("bomb", large=b"\0" * 30_000_000)
    reason = refused(shop.release(max_bytes=20 << 20))
    assert "the files of the commit take 28 MiB, and the limit is 20 MiB" in reason
    assert len(shop.releases()) == 0
    assert changed(shop.release(max_bytes=40 << 20))


def test_release_larger_than_the_disk_leaves_none_of_it(shop: Shop) -> None:
    run_command(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", shop.root])
    try:
        shop.push("bomb", large=b"\0" * 30_000_000)
        assert f"the files of the commit take 28 MiB, and {shop.base} has" in refused(shop.release())
        assert shop.releases() == []
    finally:
        run_command(["umount", shop.root])


def test_build_that_writes_more_than_the_limit_is_ended(shop: Shop) -> None:
    """Also when the file has no name. It would write until the time of the release is over."""
    fill = "import os, tempfile; f = tempfile.TemporaryFile(); [f.write(os.urandom(1 << 20)) for _ in iter(int, 1)]"
    asks(shop, fill)
    reason = refused(shop.release(max_bytes=100 << 20))
    assert "less than before, and the limit is 100 MiB. Raise max_bytes of the release" in reason
    assert shop.releases() == []


def test_deep_folders_of_a_build_keep_no_later_commit_out(shop: Shop) -> None:
    deep = "os.chdir(os.environ['TMPDIR']); [(os.mkdir('d'), os.chdir('d')) for _ in range(1500)]; 1 / 0"
    asks(shop, f"import os; {deep}")
    assert "cannot be made" in refused(shop.release())
    assert shop.releases() == []
    shop.push("two")
    assert changed(shop.release(requirements=None))
    assert not [name for name in shop.releases() if name.startswith(".")]


_EVERYWHERE = """\
import os, shutil
def tried():
    for line in open('/proc/self/mountinfo'):
        if os.access(line.split()[4], os.W_OK): yield line.split()[4]
    for folder in ('/tmp', '/var/tmp', '/run/lock', '/var/spool/cron/crontabs', {outside!r}):
        try:
            shutil.copy('/bin/true', folder + '/pyinfra-solo-setuid'); yield 'wrote ' + folder
        except OSError: pass
"""


def test_a_build_can_write_to_its_folders_alone(shop: Shop, spies: Spies, open_folder: Path) -> None:
    """A setuid program that it left elsewhere would make any account the account of builds."""
    outside = open_folder / "outside"
    outside.mkdir()
    outside.chmod(0o1777)
    report = spies.code("' '.join(sorted(tried()))")
    body = "\n    ".join(f"{_EVERYWHERE.format(outside=str(outside))}\n{report}".splitlines())
    asks(shop, body)
    assert changed(shop.release())
    writable = spies.heard()[-1].split()
    releases = shop.base / "releases"
    expected = {str(releases / "scratch"), str(releases / shop.repository.tip()[:12] / ".venv"), "/dev/shm"}  # noqa: S108
    assert {path for path in writable if not path.startswith(("/proc", "/sys"))} == expected
    assert not list(outside.iterdir())
    assert not Path("/dev/shm/pyinfra-solo-setuid").exists()  # noqa: S108


def test_a_build_finds_nothing_setuid(shop: Shop, spies: Spies) -> None:
    """Each mount is nosuid: statvfs(3), ST_NOSUID."""
    shown = "[line.split()[5] for line in open('/proc/self/mountinfo')]"
    asks(shop, spies.code(f"str(all('nosuid' in options for options in {shown}))"))
    assert changed(shop.release())
    assert spies.heard()[-1] == "True"


def test_no_other_account_can_reach_a_build(shop: Shop) -> None:
    asks(shop, "import time; time.sleep(60)")
    process = shop.start(shop.repository.tip())
    try:
        wait_for("the build", lambda: bool(list(shop.base.glob("releases/.building-*/scratch/*"))), 60)
        found = next(shop.base.glob("releases/.building-*"))
        for who in (AS_ACCOUNT, AS_NOBODY):
            done = subprocess.run([*who, "ls", f"{found}/tree"], capture_output=True, text=True, check=False)
            assert "Permission denied" in done.stderr
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_processes_of_the_account_are_ended() -> None:
    process = subprocess.Popen([*AS_ACCOUNT, "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.read(1)
    end_all(account().pw_uid, time.monotonic() + 5)
    assert process.wait(timeout=5) == -9
    process.stdout.close()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_that_is_still_open_for_writing_is_refused(open_folder: Path, mapped: bool) -> None:
    """A build can pass a descriptor to another account's process, by a socket."""
    folder = open_folder / "built"
    folder.mkdir()
    path = folder / "module.py"
    path.write_text("x = 1\n")
    for one in (folder, path):
        os.chown(one, account().pw_uid, account().pw_gid)
    hold = "m = __import__('mmap').mmap(f.fileno(), 0); f.close()" if mapped else "pass"
    code = f"import sys; f = open(sys.argv[1], 'r+b'); {hold}; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [*AS_ACCOUNT, PYTHON, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.read(1)
        with pytest.raises(TrustError, match=r"module.py is open for writing in another process"):
            take_over(folder, account().pw_uid)
    for one in (folder, path):
        os.chown(one, account().pw_uid, account().pw_gid)
    take_over(folder, account().pw_uid)


def test_source_that_takes_too_much_memory_is_left_uncompiled(shop: Shop) -> None:
    shop.push("two", **{"big.py": "x=[" + "1.5,a," * 1_000_000 + "]\n"})
    assert changed(shop.release())
    assert not list(shop.current.glob("__pycache__/big.*.pyc"))


_BROKEN = """\
import os
def broken(*_): raise RecursionError("too deep")
os.umask = lambda _: setattr(os, "lstat", broken) or setattr(os, "open", broken)
"""


def test_an_unforeseen_error_of_the_program_is_one_line(shop: Shop) -> None:
    process = shop.start("1" * 40, prelude=_BROKEN)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == "shop: RecursionError: too deep\n"


_METADATA = """
ip link set lo up
ip netns add {name}
ip link add outer type veth peer name inner netns {name}
ip addr add 192.0.2.1/24 dev outer
ip link set outer up
ip -n {name} addr add 192.0.2.2/24 dev inner
ip -n {name} addr add 169.254.169.254/32 dev inner
ip -n {name} link set inner up
ip route add 169.254.169.254 via 192.0.2.2
"""


@contextmanager
def metadata_service() -> Iterator[None]:
    """Put what this thread starts into a network namespace from which 169.254.169.254:80 answers."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = f"metadata-{os.getpid()}"
    with Path("/proc/thread-self/ns/net").open() as before:
        assert libc.unshare(0x40000000) == 0, os.strerror(ctypes.get_errno())
        try:
            subprocess.run(["sh", "-ec", _METADATA.format(name=name)], check=True)
            words = [
                "ip",
                "netns",
                "exec",
                name,
                PYTHON,
                "-m",
                "http.server",
                "--bind",
                "169.254.169.254",
                "80",
            ]
            with subprocess.Popen(words, cwd="/proc/sys/kernel/random", stderr=subprocess.DEVNULL) as server:
                try:
                    wait_for("the service", lambda: subprocess.run(_ASK, check=False).returncode == 0, 20)
                    yield
                finally:
                    server.kill()
        finally:
            assert libc.setns(before.fileno(), 0) == 0
            subprocess.run(["ip", "netns", "del", name], check=False)


_CONNECT = "import socket; socket.create_connection(('169.254.169.254', 80), 5)"
_ASK = [PYTHON, "-c", f"try: {_CONNECT}\nexcept OSError: raise SystemExit(1)"]


@pytest.mark.skipif(not shutil.which("ip"), reason="iproute2 is not installed")
def test_a_build_cannot_ask_the_metadata_service(shop: Shop) -> None:
    """Its credentials are the machine's. A service may not ask it, either."""
    asks(
        shop,
        f"import errno\n    try: {_CONNECT}\n    except PermissionError: pass\n    else: raise SystemExit(1)",
    )
    with metadata_service():
        for _ in range(2):
            process = shop.start(shop.repository.tip())
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, output
            assert "metadata" not in output
            shutil.rmtree(shop.base / "releases")
        assert subprocess.run(_ASK, check=False).returncode == 0, "others may"
        rules = subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout
        assert "169.254.169.254" not in rules, "it ends with the build"
