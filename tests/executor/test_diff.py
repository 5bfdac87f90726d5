"""A plan's lines: a file's difference, a command, and not the text of our own programs."""

from io import StringIO
from pathlib import Path

import pytest
from pyinfra.api.command import FileUploadCommand, StringCommand

from pyinfra_solo.executor.diff import preview
from pyinfra_solo.operations import script
from pyinfra_solo.operations import validated as verified


def test_a_file_that_is_verified_first_is_compared_with_the_one_it_replaces(tmp_path: Path) -> None:
    target = tmp_path / "nginx.conf"
    target.write_text("same\nold\n")
    lines = preview(FileUploadCommand(StringIO("same\nnew\n"), f"{target}{verified.NEW}"), blank=False)
    assert lines == [f"--- {target}", f"+++ {target}", "@@ -1,2 +1,2 @@", " same", "-old", "+new"]


def test_a_blank_machine_has_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("there\n")
    lines = preview(FileUploadCommand(StringIO("new\n"), f"{tmp_path}/a"), blank=True)
    assert lines[:2] == ["--- /dev/null", f"+++ {tmp_path}/a"]


def test_what_is_no_text_has_no_diff(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0")
    command = FileUploadCommand(StringIO("text\n"), f"{tmp_path}/a")
    assert preview(command, blank=False) == [f"Binary file {tmp_path}/a differs"]


@pytest.mark.parametrize("name", ["packages", "service", "account"])
def test_a_program_of_ours_is_shown_by_its_name_and_words(name: str) -> None:
    lines = preview(script.run(name, "apply", "a word"), blank=False)
    assert lines == [f"$ sh -c ... {name} apply 'a word'"]


def test_a_command_of_several_lines_is_shown_whole() -> None:
    assert preview(StringCommand("echo a\necho b"), blank=False) == ["$ echo a", "  echo b"]
