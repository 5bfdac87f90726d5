"""A file is whole or what it was; a folder without its marker is never believed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyinfra_solo.system import durable
from tests.support.machine import ENGINE
from tests.support.programs import is_alive

WRITER = """
import sys
from pathlib import Path
from pyinfra_solo.system import durable
path = Path(sys.argv[1])
while True:
    for letter in b"ab":
        durable.write(path, bytes([letter]) * 300_000, 0o640)
"""

PUBLISHER = """
import sys
from pathlib import Path
from pyinfra_solo.system import durable
parent = Path(sys.argv[1])
while True:
    durable.remove_unfinished(parent)
    building = parent / ".building-one"
    building.mkdir()
    for number in range(40):
        (building / str(number)).write_text("whole")
    durable.publish(building, parent / "one")
    durable.discard(parent / "one")
"""


def killed_at_random(code: str, argument: Path, seconds: float) -> None:
    """Run `code`, and kill it with SIGKILL within `seconds` of its first sign of life."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(argument)], env={**os.environ, "PYTHONPATH": str(ENGINE)}
    )
    watched = argument if argument.is_dir() else argument.parent
    before = watched.stat().st_mtime_ns
    while watched.stat().st_mtime_ns == before:
        assert is_alive(process.pid)
        time.sleep(0.001)
    time.sleep(random.uniform(0, seconds))  # noqa: S311 - any moment will do
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_file_has_its_content_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        durable.write(tmp_path / "file", "text\n", 0o644)
        durable.write(tmp_path / "secret", b"\x00", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_text() == "text\n"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        durable.write(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write(path, b"a" * 300_000, 0o640)
    for _ in range(15):
        killed_at_random(WRITER, path, 0.05)
        content = path.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_moved_over_what_was_there(tmp_path: Path) -> None:
    for target in ("one", "two"):
        durable.link(tmp_path / "link", target)
        assert (tmp_path / "link").readlink() == Path(target)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@pytest.mark.parametrize(("marker", "content"), [(durable.MARKER, ""), ("marker", "content")])
def test_publishing_replaces_an_incomplete_folder_only(tmp_path: Path, marker: str, content: str) -> None:
    building, final = tmp_path / ".building-x", tmp_path / "x"
    final.mkdir()
    (final / "torn").touch()
    for text in ("first", "second"):
        building.mkdir()
        (building / "file").write_text(text)
        assert not durable.is_complete(building, marker)
        durable.publish(building, final, marker, content)
        assert durable.is_complete(final, marker)
        assert {path.name: path.read_text() for path in final.iterdir()} == {marker: content, "file": "first"}
        assert not building.exists()


def test_an_invalidated_folder_keeps_its_files(tmp_path: Path) -> None:
    durable.complete(tmp_path)
    durable.invalidate(tmp_path)
    durable.invalidate(tmp_path)
    assert not durable.is_complete(tmp_path)


def test_a_publisher_killed_at_any_moment_leaves_a_whole_folder_or_none(tmp_path: Path) -> None:
    for _ in range(15):
        killed_at_random(PUBLISHER, tmp_path, 0.1)
        if durable.is_complete(tmp_path / "one"):
            files = [path for path in (tmp_path / "one").iterdir() if path.name != durable.MARKER]
            assert len(files) == 40
            assert {path.read_text() for path in files} == {"whole"}
        for path in tmp_path.iterdir():
            assert path.name == "one" or path.name.startswith(durable.BUILDING)
    durable.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["one"])


def test_what_killed_runs_left_goes_and_nothing_else(tmp_path: Path) -> None:
    """Those of folders, of `write` and of `link`."""
    for name in (".building-1", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / ".building-link").symlink_to(tmp_path / "kept")
    (tmp_path / ".building-file").touch()
    (tmp_path / ".current.123.new").symlink_to("kept")
    (tmp_path / ".file.abcdef.new").touch()
    assert len(durable.unfinished(tmp_path)) == 5
    durable.remove_unfinished(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["kept", "kept/file"]
    durable.remove_unfinished(tmp_path / "not there")
    durable.discard(tmp_path / "not there")


def test_a_tree_can_be_synced_on_any_file_system(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    durable.sync_tree(tmp_path)
    durable.sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        durable.sync_tree(tmp_path / "not there")
    shm = Path("/dev/shm")  # noqa: S108 - a file system that has nothing to sync
    if shm.is_dir():
        durable.sync_tree(shm)
