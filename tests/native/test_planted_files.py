"""A file that another account made before root wrote it gives that account no part in root's file.

Such as in /var/tmp, where any account can make any name, and keep what it has open.
"""

import os
import resource
import subprocess
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyinfra.operations import files

from pyinfra_solo.native import commands
from pyinfra_solo.native import files as native_files
from pyinfra_solo.native.held import RefusedError
from pyinfra_solo.native.pending_files import PendingFiles
from tests.support import both_ways as ways
from tests.support.apart import mount_over, run_apart
from tests.support.pyinfra_api import Played, play_in

NOBODY = 65534
NEW = "#!/bin/sh\necho harmless\n"


@pytest.fixture(params=["sticky", "own", "group"])
def folder(request: pytest.FixtureRequest, open_folder: Path) -> Path:
    """A folder for all, one of the account's own, and root's folder that the account's group may write."""
    path = open_folder / "shared"
    path.mkdir()
    mode, uid, gid = {"sticky": (0o1777, 0, 0), "own": (0o755, NOBODY, NOBODY), "group": (0o2775, 0, NOBODY)}[
        request.param
    ]
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def plant(path: Path, text: str = "old", mode: int = 0o777) -> int:
    """Make a file of the account's, and return a descriptor that can write to it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.write(descriptor, text.encode())
    os.fchown(descriptor, NOBODY, NOBODY)
    os.fchmod(descriptor, mode)
    return descriptor


def what_opens(folder: str) -> list[str]:
    """Return what the account can open for reading or writing below the folder, however deep."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    opened = []
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            for flag in (os.O_RDONLY, os.O_RDWR):
                try:
                    os.close(os.open(os.path.join(above, name), flag))  # noqa: PTH118
                    opened.append(name)
                except OSError:
                    pass
    return opened


def put(path: Path, **options: Any) -> Played:
    return play_in(
        ways.our_state(native=True),
        partial(files.put, src=StringIO(NEW), dest=str(path), create_remote_dir=False, **options),
    )


def check_roots_alone(path: Path, descriptor: int, mode: int) -> None:
    about = path.stat()
    assert (oct(about.st_mode), about.st_uid, about.st_gid) == (oct(0o100000 | mode), 0, 0)
    assert about.st_ino != os.fstat(descriptor).st_ino, "a file that the account has open"
    assert path.read_text() == NEW


@pytest.mark.parametrize("old", ["old", None])
def test_a_file_that_is_written_cannot_be_opened(old: str | None, folder: Path) -> None:
    """By the owner of the old file, before chown(1) of the role comes."""
    path = folder / "tool.sh"
    if old:
        os.close(plant(path))
    pending = PendingFiles()
    pending.defer_rename = True
    pending.put(str(path), NEW.encode())
    assert set(run_apart(what_opens, folder)) <= {"tool.sh"}
    assert commands.run(f"chown root:root {path}", pending)
    assert commands.run(f"chmod 755 {path}", pending)
    pending.rename_into_place()
    assert (oct(path.stat().st_mode), path.stat().st_uid) == ("0o100755", 0)
    assert [one.name for one in folder.iterdir()] == ["tool.sh"]


def test_a_planted_file_is_replaced_by_one_of_root(folder: Path) -> None:
    descriptor = plant(folder / "tool.sh")
    assert put(folder / "tool.sh", user="root", group="root", mode="755").made
    check_roots_alone(folder / "tool.sh", descriptor, 0o755)
    os.close(descriptor)


def test_a_planted_mode_group_and_list_are_not_inherited(folder: Path) -> None:
    """The role names an owner alone, then a mode without a group: neither lets the account read."""
    for name, options, mode in (("one", {}, 0o600), ("two", {"mode": "640"}, 0o640)):
        descriptor = plant(folder / name)
        os.setxattr(folder / name, "system.posix_acl_access", ways.ACL_FOR_NOBODY)
        assert put(folder / name, user="root", **options).made
        about = (folder / name).stat()
        assert (oct(about.st_mode), about.st_uid) == (oct(0o100000 | mode), 0)
        assert about.st_gid in (0, folder.stat().st_gid if folder.stat().st_uid == 0 else 0)
        assert "system.posix_acl_access" not in os.listxattr(folder / name)
        os.close(descriptor)


def test_an_account_keeps_its_file_in_its_folder_alone(folder: Path) -> None:
    """Where the role names no owner. Elsewhere the file becomes root's, and for root alone."""
    descriptor = plant(folder / "conf", mode=0o644)
    assert put(folder / "conf").made
    about = (folder / "conf").stat()
    is_own = folder.stat().st_uid == NOBODY
    assert (oct(about.st_mode), about.st_uid) == (("0o100644", NOBODY) if is_own else ("0o100600", 0))
    os.close(descriptor)


def test_a_planted_file_of_the_right_contents_is_refused(folder: Path) -> None:
    """No upload is needed then, so chown(1) alone would make root's what the account has open."""
    descriptor = plant(folder / "tool.sh", NEW)
    played = put(folder / "tool.sh", user="root", group="root", mode="755")
    assert played.failed
    assert "tool.sh is refused: this file, which that account may have open, of nobody" in played.text
    assert (folder / "tool.sh").stat().st_uid == NOBODY
    os.close(descriptor)


def plant_pipe(path: Path) -> None:
    os.mkfifo(path)
    os.chown(path, NOBODY, NOBODY)


def plant_two_names(path: Path) -> None:
    os.close(plant(path))
    os.link(path, path.with_name("mine"))


@pytest.mark.parametrize("make", [plant_pipe, plant_two_names])
@pytest.mark.parametrize("operation", ["put", "get"])
def test_a_secret_goes_into_no_planted_pipe_or_link(
    make: Callable[[Path], None], operation: str, folder: Path
) -> None:
    path = folder / "db.env"
    make(path)
    reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    if operation == "put":
        played = put(path, user="root", mode="600")
    else:
        (folder.parent / "secret").write_text(NEW)
        played = play_in(
            ways.our_state(native=True),
            partial(files.get, src=str(folder.parent / "secret"), dest=str(path), force=True),
        )
    assert played.failed
    with suppress(BlockingIOError):
        assert NEW.encode() not in os.read(reader, 100)
    os.close(reader)


def put_on_a_full_disk(path: str) -> tuple[str, str]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "none", path], check=True)
    descriptor = plant(Path(path, "tool.sh"), "x" * 3000)
    try:
        with Path(path, "fill").open("wb") as fill:
            fill.write(bytes(2**20))
    except OSError:
        pass
    try:
        PendingFiles().put(f"{path}/tool.sh", NEW.encode())
        ended = "written"
    except OSError as error:
        ended = str(error.strerror)
    return ended, os.pread(descriptor, 9, 0).decode()


def test_a_planted_file_on_a_full_disk_is_not_written_in_place(tmp_path: Path) -> None:
    """The account can fill a tmpfs, and has its own file open."""
    found = run_apart(put_on_a_full_disk, tmp_path, own_mounts=True)
    assert tuple(found) == ("No space left on device", "xxxxxxxxx")


def put_on_a_mount_point(path: str) -> str:
    file = Path(path, "file")
    file.parent.chmod(0o1777)
    plant(file)
    mount_over(str(file), file)
    try:
        PendingFiles().put(str(file), NEW.encode())
    except RefusedError as error:
        return str(error)
    return "written"


def test_a_mount_point_of_a_planted_file_is_not_written(open_folder: Path) -> None:
    """A rename over it is impossible, and the account has it open."""
    assert "is refused: this file of nobody" in run_apart(put_on_a_mount_point, open_folder, own_mounts=True)


def read_what_grows(path: str) -> list[str]:
    """Let the file grow as soon as its length is known."""
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    of_file, ended = os.fstat, []

    def and_grow(descriptor: int) -> os.stat_result:
        status = of_file(descriptor)
        os.truncate(path, 2**33)
        return status

    pytest.MonkeyPatch().setattr(os, "fstat", and_grow)
    for function in (native_files.contents, native_files.read):
        os.truncate(path, 1000)
        try:
            ended.append(str(len(function(path) or b"")))
        except OSError as error:
            ended.append(str(error))
    return ended


def test_a_file_that_grows_while_it_is_read_fills_no_memory(open_folder: Path) -> None:
    """An account may let its own file grow at any moment."""
    path = open_folder / "file"
    path.touch()
    longer = f"{path} has another length than stat(2) gives"
    found = run_apart(read_what_grows, path)
    assert found[0] == longer
    assert "has more than 64 MiB" in found[1]


def test_a_file_that_is_too_long_is_not_fetched(open_folder: Path) -> None:
    (open_folder / "file").touch()
    os.truncate(open_folder / "file", 64 * 2**20 + 1)
    connector = ways.connector_of(ways.our_state(native=True))
    with pytest.raises(OSError, match=r"has more than 64 MiB, the most that files\.get reads"):
        connector.get_file(str(open_folder / "file"), str(open_folder / "copy"))
    assert not (open_folder / "copy").exists()
