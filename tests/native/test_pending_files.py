"""A file that is put comes whole, with its owner and mode, or not at all; and cp(1)'s way where no other is open."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo.native import commands
from pyinfra_solo.native.pending_files import PendingFiles
from tests.support.machine import ENGINE, REPOSITORY


def test_a_link_s_owner_is_changed_and_not_that_of_the_file_that_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    puts = PendingFiles()
    puts.waits = True
    puts.put(str(tmp_path / "link"), b"new")
    assert commands.done(f"chown -h daemon {tmp_path}/link", puts)
    puts.appear()
    assert (tmp_path / "link").lstat().st_uid == 1
    assert (tmp_path / "file").stat().st_uid == 0


_KILLED = """
import sys, time
from pyinfra_solo.native import commands
from pyinfra_solo.native.pending_files import PendingFiles
puts = PendingFiles()
puts.waits = True
puts.put(sys.argv[1], b"new")
assert commands.done(f"chown daemon:mail {sys.argv[1]}", puts)
print("waits", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_is_killed_while_a_file_waits_leaves_what_was_there(there: bool, tmp_path: Path) -> None:
    """And what it leaves beside it goes with the next file that is put there."""
    path = tmp_path / "file"
    if there:
        path.write_text("old")
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, path], env={**os.environ, "PYTHONPATH": str(ENGINE)}, cwd=REPOSITORY,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout
    with child.stdout:
        assert child.stdout.readline() == "waits\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert path.exists() is there
    assert not there or (path.read_text(), path.stat().st_uid) == ("old", 0)
    PendingFiles().put(str(tmp_path / "other"), b"next")
    assert {one.name for one in tmp_path.iterdir()} == {"other", *(["file"] if there else [])}


def test_a_pipe_that_nobody_reads_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        PendingFiles().put(str(tmp_path / "pipe"), b"new")


def test_a_pipe_that_somebody_reads_is_given_all_of_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "read").open("wb") as into:
        reading = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=into)
    data = bytes(range(256)) * 1000
    while True:
        try:
            PendingFiles().put(str(tmp_path / "pipe"), data)
            break
        except OSError:
            assert reading.poll() is None
    assert reading.wait(timeout=60) == 0
    assert (tmp_path / "read").read_bytes() == data


@pytest.mark.parametrize("end", ["", "/", "/."])
def test_a_file_is_not_put_into_a_folder_under_a_name_that_nobody_gave(end: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        PendingFiles().put(f"{tmp_path}{end}", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_put_into_a_place_of_the_kernel() -> None:
    """Nothing can be beside it."""
    path = Path("/proc/self/comm")
    before = path.read_bytes()
    try:
        PendingFiles().put(str(path), b"put")
        assert path.read_text() == "put\n"
    finally:
        path.write_bytes(before)


_MOUNTED = """
import os, subprocess, sys
from pathlib import Path
from pyinfra_solo.native import commands
from pyinfra_solo.native.pending_files import PendingFiles
folder = Path(sys.argv[1])
subprocess.run(["mount", "--bind", folder / "over", folder / "file"], check=True)
puts = PendingFiles()
puts.waits = True
puts.put(str(folder / "file"), b"new")
assert commands.done(f"chown daemon:mail {folder}/file", puts)
assert commands.done(f"chmod 640 {folder}/file", puts)
puts.appear()
subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder / "ro"], check=True)
subprocess.run(["mount", "-o", "remount,rw", folder / "ro"], check=True)
(folder / "ro/file").touch()
subprocess.run(["mount", "--bind", folder / "other", folder / "ro/file"], check=True)
subprocess.run(["mount", "-o", "remount,ro", folder / "ro"], check=True)
puts.put(str(folder / "ro/file"), b"new")
puts.appear()
"""


def test_a_file_that_something_is_mounted_on_is_written_into(tmp_path: Path) -> None:
    """Such as a container's /etc/hosts, also where the folder around it may not be written."""
    for name in ("file", "over", "other"):
        (tmp_path / name).write_text("old")
    (tmp_path / "ro").mkdir()
    subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _MOUNTED, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, check=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "file").read_text() == "old"
    about = (tmp_path / "over").stat()
    assert (tmp_path / "over").read_text() == (tmp_path / "other").read_text() == "new"
    assert (stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid) == (0o640, 1, 8)
    assert not list(tmp_path.glob(".pyinfra-solo-*"))


def test_a_long_name_of_letters_of_several_bytes_can_be_put(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    PendingFiles().put(str(path), b"new")
    assert path.read_bytes() == b"new"


def test_a_file_that_gave_way_to_something_else_is_not_waited_for(tmp_path: Path) -> None:
    """What was put is to be on disk before a program runs; by then it may be a pipe, or below what is no folder."""
    puts = PendingFiles()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        puts.put(str(tmp_path / name / "file"), b"new")
    (tmp_path / "a/file").unlink()
    os.mkfifo(tmp_path / "a/file")
    (tmp_path / "b/file").unlink()
    (tmp_path / "b").rmdir()
    (tmp_path / "b").write_text("no folder")
    puts.on_disk()


@pytest.fixture
def for_all() -> Iterator[Path]:
    """A folder that every account can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_one_who_is_not_root_puts_what_cp_would_put(for_all: Path) -> None:
    """A file that may be written in a folder that may not, and one of another owner; not one that may be read only."""
    code = f"""
import os
from pyinfra_solo.native.pending_files import PendingFiles
os.setgid(65534); os.setuid(65534)
os.chdir({str(for_all)!r})
for name in ("locked/file", "open/other", "open/mine"):
    PendingFiles().put(name, b"new")
try:
    PendingFiles().put("open/readable", b"new")
except PermissionError:
    print("refused")
"""
    for name, mode, owner in (
        ("locked/file", 0o666, 0),
        ("open/other", 0o666, 0),
        ("open/mine", 0o600, 65534),
        ("open/readable", 0o644, 0),
    ):
        (for_all / name).parent.mkdir(exist_ok=True)
        (for_all / name).write_text("old")
        (for_all / name).chmod(mode)
        os.chown(for_all / name, owner, owner)
    (for_all / "open").chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ENGINE)!r}); import pyinfra_solo.native.pending_files\n{code}"],
        stdout=subprocess.PIPE, text=True, check=True, timeout=60, env={**os.environ, "PYTHONPATH": ""}, cwd=for_all,
    )  # fmt: skip
    assert done.stdout == "refused\n"
    texts = {path.name: path.read_text() for path in for_all.rglob("*") if path.is_file()}
    assert texts == {"file": "new", "other": "new", "mine": "new", "readable": "old"}


def test_two_that_put_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    """`pyinfra @solo` takes no lock."""
    one, other = PendingFiles(), PendingFiles()
    one.waits = other.waits = True
    one.put(str(tmp_path / "public"), b"public")
    other.put(str(tmp_path / "secret"), b"secret")
    one.appear()
    other.appear()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "public": b"public",
        "secret": b"secret",
    }
