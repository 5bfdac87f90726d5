"""A plan's lines: a file's difference, a command, and not the text of our own programs."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FileUploadCommand, QuoteString, StringCommand

from pyinfra_solo.executor.diff import preview
from pyinfra_solo.operations import packages
from pyinfra_solo.operations.validated import UNVALIDATED


def test_a_validated_file_is_compared_with_its_target(open_folder: Path) -> None:
    target = open_folder / "nginx.conf"
    target.write_text("same\nold\n")
    lines = preview([FileUploadCommand(StringIO("same\nnew\n"), f"{target}{UNVALIDATED}")], blank=False)
    assert lines == [f"--- {target}", f"+++ {target}", "@@ -1,2 +1,2 @@", " same", "-old", "+new"]


def test_a_blank_machine_has_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("there\n")
    lines = preview([FileUploadCommand(StringIO("new\n"), f"{tmp_path}/a")], blank=True)
    assert lines[:2] == ["--- /dev/null", f"+++ {tmp_path}/a"]


def test_what_is_no_text_has_no_diff(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0")
    command = FileUploadCommand(StringIO("text\n"), f"{tmp_path}/a")
    assert preview([command], blank=False) == [f"Binary file {tmp_path}/a differs"]


def test_a_program_of_ours_is_shown_by_its_name_verb_and_arguments() -> None:
    command = packages.PROGRAM.command("apply", {"lists_age": 60, "packages": ["a", "b"], "text": "a word"})
    assert preview([command], blank=False) == [
        """$ packages apply lists_age:=60 'packages:=["a", "b"]' 'text=a word'"""
    ]


def test_a_command_of_several_lines_is_shown_whole() -> None:
    assert preview([StringCommand("echo a\necho b")], blank=False) == ["$ echo a", "  echo b"]


@pytest.mark.parametrize("hidden", ["mode", "folder", "secret", "old secret", "new mode"])
def test_contents_that_others_may_not_read_are_not_shown(open_folder: Path, hidden: str) -> None:
    """A rotation would show the old key, which no value of a role holds any more."""
    folder = open_folder / "etc"
    folder.mkdir(mode=0o700 if hidden == "folder" else 0o755)
    target = folder / "key"
    target.write_text("user = shop\nkey = OLD\n")
    target.chmod(0o640 if hidden == "mode" else 0o644)
    commands: list[Any] = [FileUploadCommand(StringIO("user = shop\nkey = NEW\n"), str(target))]
    if hidden == "new mode":
        commands.append(StringCommand("chmod", "600", QuoteString(str(target))))
    secrets = {"secret": "NEW", "old secret": "OLD"}
    lines = preview(commands, blank=False, holds_secret=lambda text: secrets.get(hidden, "-") in text)
    reason = "it holds a secret" if "secret" in hidden else "other accounts may not read it"
    assert lines[0] == f"{target} differs by +1 -1 lines (not shown: {reason})"
    assert "OLD" not in str(lines)
    assert "NEW" not in str(lines)
