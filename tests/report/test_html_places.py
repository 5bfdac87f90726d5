"""The page is written only where no other account can read, replace or redirect it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo.errors import UsageError
from pyinfra_solo.report import html
from tests.report.test_text import some

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another account")


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def give(path: Path) -> Path:
    os.chown(path, 65534, 65534, follow_symlinks=False)
    return path


def refused(path: Path, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        html.write(some(), path)


def test_page_in_a_folder_of_another_account_is_refused(folder: Path) -> None:
    (folder / "of-nobody/inner").mkdir(parents=True)
    give(folder / "of-nobody")
    refused(
        folder / "of-nobody/page.html",
        r"of-nobody: it belongs to nobody\. Name a file in a folder of your own",
    )
    refused(folder / "of-nobody/inner/page.html", "of-nobody: it belongs to nobody")
    assert not (folder / "of-nobody/page.html").exists()


def test_page_below_a_link_of_another_account_is_refused(folder: Path) -> None:
    (folder / "roots").mkdir()
    (folder / "link").symlink_to("roots")
    give(folder / "link")
    refused(folder / "link/page.html", "link: it belongs to nobody")


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_page_in_a_folder_that_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    os.chown(folder, 0, 65534)
    folder.chmod(mode)
    refused(folder / "page.html", "others may write to it")


def test_page_replaces_no_file_of_another_account(folder: Path) -> None:
    (folder / "page.html").write_text("kept")
    give(folder / "page.html")
    refused(folder / "page.html", "it belongs to nobody")
    assert (folder / "page.html").read_text() == "kept"


def test_pipe_without_a_reader_holds_up_nobody(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    refused(folder / "pipe", "No such device or address")


def test_page_is_written_in_a_shared_folder_with_the_sticky_bit(folder: Path) -> None:
    folder.chmod(0o1777)
    html.write(some(), folder / "page.html")
    (folder / "page.html").chmod(0o644)
    html.write(some(), folder / "page.html")
    assert (folder / "page.html").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == ["page.html"]


def test_page_is_written_in_the_home_of_who_called_sudo(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.chdir(give(folder))
    html.write(some(), Path("page.html"))
    assert (folder / "page.html").stat().st_uid == 0
