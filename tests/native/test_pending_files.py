"""An uploaded file appears whole, with its owner and mode, or not at all; in place only where no rename is possible."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyinfra_solo.native import commands
from pyinfra_solo.native.pending_files import PendingFiles
from tests.support.apart import mount_over, run_apart
from tests.support.both_ways import with_flag
from tests.support.machine import ENGINE, REPOSITORY


def test_chown_of_a_link_leaves_its_pending_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    pending = PendingFiles()
    pending.defer_rename = True
    pending.put(str(tmp_path / "link"), b"new")
    assert commands.run(f"chown -h daemon {tmp_path}/link", pending)
    pending.rename_into_place()
    assert (tmp_path / "link").lstat().st_uid == 1
    assert (tmp_path / "file").stat().st_uid == 0


def wait_with_a_pending_file(path: str) -> None:
    pending = PendingFiles()
    pending.defer_rename = True
    pending.put(path, b"new")
    assert commands.run(f"chown daemon:mail {path}", pending)
    sys.stdout.write("pending\n")
    sys.stdout.flush()
    time.sleep(60)


@pytest.mark.parametrize("there", [True, False])
def test_a_killed_run_leaves_the_old_file(there: bool, tmp_path: Path) -> None:
    """Its temporary file is removed when the next file is put into that folder."""
    path = tmp_path / "file"
    if there:
        path.write_text("old")
    code = f"from {__name__} import *; wait_with_a_pending_file({str(path)!r})"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": f"{ENGINE}:{REPOSITORY}"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout
    with child.stdout:
        assert child.stdout.readline() == "pending\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert path.exists() is there
    assert not there or (path.read_text(), path.stat().st_uid) == ("old", 0)
    PendingFiles().put(str(tmp_path / "other"), b"next")
    assert {one.name for one in tmp_path.iterdir()} == {"other", *(["file"] if there else [])}


def test_a_pipe_without_a_reader_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        PendingFiles().put(str(tmp_path / "pipe"), b"new")


def test_a_pipe_with_a_reader_gets_all_of_it(tmp_path: Path) -> None:
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


def test_a_pipe_whose_reader_does_not_read_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    pending = PendingFiles()
    pending.timeout = 0.1
    try:
        with pytest.raises(
            TimeoutError, match=r"took longer than 0\.1 s: \d+ of 1000000 bytes are unread: '.*pipe'"
        ):
            pending.put(str(tmp_path / "pipe"), bytes(1_000_000))
    finally:
        os.close(reader)


@pytest.mark.parametrize("end", ["", "/", "/."])
def test_a_folder_is_no_target(end: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Is a directory"):
        PendingFiles().put(f"{tmp_path}{end}", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_kernel_is_written_in_place() -> None:
    """No temporary file can be created beside it."""
    path = Path("/proc/self/comm")
    before = path.read_bytes()
    try:
        PendingFiles().put(str(path), b"put")
        assert path.read_text() == "put\n"
    finally:
        path.write_bytes(before)


def put_on_mount_points(path: str) -> None:
    folder, pending = Path(path), PendingFiles()
    mount_over(f"{folder}/file", folder / "over")
    pending.defer_rename = True
    pending.put(f"{folder}/file", b"new")
    assert commands.run(f"chown daemon:mail {folder}/file", pending)
    assert commands.run(f"chmod 640 {folder}/file", pending)
    pending.rename_into_place()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder / "ro"], check=True)
    (folder / "ro/file").touch()
    mount_over(f"{folder}/ro/file", folder / "other")
    subprocess.run(["mount", "-o", "remount,ro", folder / "ro"], check=True)
    pending.put(f"{folder}/ro/file", b"new")
    pending.rename_into_place()


def test_a_mount_point_is_written_in_place(tmp_path: Path) -> None:
    """Such as a container's /etc/hosts, also in a folder on a read-only file system."""
    for name in ("file", "over", "other"):
        (tmp_path / name).write_text("old")
    (tmp_path / "ro").mkdir()
    run_apart(put_on_mount_points, tmp_path, own_mounts=True)
    assert (tmp_path / "file").read_text() == "old"
    about = (tmp_path / "over").stat()
    assert (tmp_path / "over").read_text() == (tmp_path / "other").read_text() == "new"
    assert (stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid) == (0o640, 1, 8)
    assert not list(tmp_path.glob(".pyinfra-solo-*"))


def test_a_name_of_254_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    PendingFiles().put(str(path), b"new")
    assert path.read_bytes() == b"new"


def test_sync_ignores_a_file_that_is_something_else_by_now(tmp_path: Path) -> None:
    """Such as a pipe, or a path below a file."""
    pending = PendingFiles()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pending.put(str(tmp_path / name / "file"), b"new")
    (tmp_path / "a/file").unlink()
    os.mkfifo(tmp_path / "a/file")
    (tmp_path / "b/file").unlink()
    (tmp_path / "b").rmdir()
    (tmp_path / "b").write_text("no folder")
    pending.sync()


def put_as_nobody(folder: str) -> str:
    os.setgid(65534)
    os.setuid(65534)
    os.chdir(folder)
    for name in ("locked/file", "open/other", "open/mine"):
        PendingFiles().put(name, b"new")
    try:
        PendingFiles().put("open/readable", b"new")
    except PermissionError:
        return "refused"
    return "written"


def test_another_account_writes_what_cp_would_write(open_folder: Path) -> None:
    """A writable file in a folder that is not, and one of another owner; not a file that is read-only."""
    for name, mode, owner in (
        ("locked/file", 0o666, 0), ("open/other", 0o666, 0), ("open/mine", 0o600, 65534), ("open/readable", 0o644, 0)
    ):  # fmt: skip
        (open_folder / name).parent.mkdir(exist_ok=True)
        (open_folder / name).write_text("old")
        (open_folder / name).chmod(mode)
        os.chown(open_folder / name, owner, owner)
    (open_folder / "open").chmod(0o777)
    assert run_apart(put_as_nobody, open_folder) == "refused"
    texts = {path.name: path.read_text() for path in open_folder.rglob("*") if path.is_file()}
    assert texts == {"file": "new", "other": "new", "mine": "new", "readable": "old"}


def test_two_runs_in_one_folder_use_different_temporary_files(tmp_path: Path) -> None:
    """`pyinfra @solo` takes no lock."""
    one, other = PendingFiles(), PendingFiles()
    one.defer_rename = other.defer_rename = True
    one.put(str(tmp_path / "public"), b"public")
    other.put(str(tmp_path / "secret"), b"secret")
    one.rename_into_place()
    other.rename_into_place()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "public": "public",
        "secret": "secret",
    }


def put_on_a_nearly_full_disk(path: str) -> list[str]:
    """Put what fits only in the place of the old file; then what does not fit; then both with a new name."""
    folder, ended = Path(path), []
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", folder], check=True)
    (folder / "file").write_bytes(b"old" * 200_000)
    (folder / "file").chmod(0o640)
    for name, data in (("file", b"new" * 250_000), ("file", b"more" * 300_000), ("other", b"x" * 500_000)):
        try:
            PendingFiles().put(f"{folder}/{name}", data)
            ended.append("written")
        except OSError as error:
            ended.append(str(error.strerror))
    about, content = (folder / "file").stat(), (folder / "file").read_bytes()
    names = sorted(one.name for one in folder.iterdir())
    return [*ended, oct(about.st_mode), *names, "new" if content == b"new" * 250_000 else "destroyed"]


def test_a_nearly_full_disk_gets_what_cp_would_write(tmp_path: Path) -> None:
    """In the place of the old file, which stays where the new one does not fit."""
    full = "No space left on device"
    assert run_apart(put_on_a_nearly_full_disk, tmp_path, own_mounts=True) == [
        "written", full, full, "0o100640", "file", "new"
    ]  # fmt: skip


@pytest.mark.parametrize("there", [True, False])
def test_an_append_only_folder_keeps_no_copy(there: bool, tmp_path: Path) -> None:
    """Nothing can be removed from it: a temporary file, with a secret in it, would stay."""
    folder = tmp_path / "folder"
    folder.mkdir()
    if there:
        (folder / "file").write_text("old")
    free = with_flag("a", folder)
    try:
        pending = PendingFiles()
        pending.defer_rename = True
        pending.put(f"{folder}/file", b"new")
        assert commands.run(f"chmod 640 {folder}/file", pending)
        pending.rename_into_place()
    finally:
        free()
    assert [(one.name, one.read_text(), oct(one.stat().st_mode)) for one in folder.iterdir()] == [
        ("file", "new", "0o100640")
    ]


def put_on_a_setuid_file_as_nobody(path: str) -> list[str]:
    """Ours, then the way of cp(1)."""
    os.setgid(65534)
    os.setuid(65534)
    PendingFiles().put(f"{path}/ours", b"new")
    subprocess.run(["cp", "/etc/hostname", f"{path}/theirs"], check=True)
    return [oct(Path(path, name).stat().st_mode) for name in ("ours", "theirs")]


def test_setuid_bits_end_as_with_cp(open_folder: Path) -> None:
    """A write by root keeps them, one by another account clears them."""
    (open_folder / "mine").mkdir()
    os.chown(open_folder / "mine", 65534, 65534)
    for name in ("ours", "theirs"):
        path = open_folder / "mine" / name
        path.write_text("old")
        os.chown(path, 65534, 65534)
        path.chmod(0o6755)
    ours, theirs = run_apart(put_on_a_setuid_file_as_nobody, open_folder / "mine")
    assert ours == theirs == "0o100755"
    root = open_folder / "roots"
    root.write_text("old")
    root.chmod(0o6755)
    PendingFiles().put(str(root), b"new")
    assert (root.read_text(), oct(root.stat().st_mode)) == ("new", "0o106755")


def test_attributes_of_root_alone_stay_on_a_replaced_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    before = (tmp_path / "file").stat().st_ino
    os.setxattr(tmp_path / "file", "trusted.kept", b"value")
    PendingFiles().put(str(tmp_path / "file"), b"new")
    assert (tmp_path / "file").stat().st_ino != before
    assert os.getxattr(tmp_path / "file", "trusted.kept") == b"value"
