"""A configuration replaces the old one only when its own program finds it good."""

import shutil
from pathlib import Path

import pytest

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations import validated
from tests.support.pyinfra_api import Played, play

GOOD = 'grep -q "^good" "$FILE"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site.j2").write_text("{{ quality }} {{ number }}\n")
    (tmp_path / "site").write_text("good 0\n")
    return tmp_path


def put(folder: Path, quality: str, number: int = 1, validate: str = GOOD) -> Played:
    return play(
        lambda: validated.template(
            name="the site is known", src="site.j2", dest=str(folder / "site"), validate=validate, quality=quality, number=number
        ),
        folder,
    )  # fmt: skip


def test_a_good_file_replaces_the_old_one(folder: Path) -> None:
    old = (folder / "site").stat().st_ino
    assert put(folder, "good").made == ("the site is known",)
    assert (folder / "site").read_text() == "good 1\n"
    assert (folder / "site").stat().st_ino != old, "by a rename"
    assert sorted(path.name for path in folder.iterdir()) == ["site", "site.j2"]


def test_a_second_time_changes_nothing(folder: Path) -> None:
    put(folder, "good")
    assert put(folder, "good").made == ()


def test_a_bad_file_leaves_the_old_one_and_says_why(folder: Path) -> None:
    played = put(folder, "bad", validate=f'{GOOD} || {{ echo "line 1: unknown directive"; exit 1; }}')
    assert played.failed == "the site is known"
    assert played.text.splitlines()[-1] == (
        f"The new {folder}/site was refused: line 1: unknown directive. {folder}/site is unchanged. "
        "Correct the template or its values."
    )
    assert (folder / "site").read_text() == "good 0\n"
    assert sorted(path.name for path in folder.iterdir()) == ["site", "site.j2"]


@pytest.mark.parametrize(
    ("validate", "reason"),
    [
        ("exit 3", "its program ended with status 3"),
        ('echo "$FILE:1: why"; echo "$FILE: failed" >&2; exit 1', "{0}:1: why; {0}: failed"),
        ("seq 9; exit 1", "1; 2; 3"),
        ("yes | head -c 900 | tr -d '\\n'; echo; echo why; exit 1", "why"),
    ],
)
def test_a_refusal_s_message_has_the_program_s_first_lines(folder: Path, validate: str, reason: str) -> None:
    last = put(folder, "bad", validate=validate).text.splitlines()[-1]
    assert last.startswith(f"The new {folder}/site was refused: {reason.format(folder / 'site')}. ")


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_nginx_says_what_is_wrong_and_where(folder: Path) -> None:
    (folder / "site.j2").write_text("events {}\nlisten 80;\n")
    played = put(folder, "bad", validate='nginx -t -q -c "$FILE"')
    reason = f'"listen" directive is not allowed here in {folder}/site:2'
    assert reason in played.text.splitlines()[-1]


def test_what_a_killed_run_left_is_not_in_the_way(folder: Path) -> None:
    (folder / f"site{validated.UNVALIDATED}").write_text("half")
    assert put(folder, "good").made == ("the site is known",)
    assert (folder / "site").read_text() == "good 1\n"


def test_a_template_that_lacks_a_value_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"site\.j2 cannot be filled: 'quality' is undefined"):
        validated.rendered(folder / "site.j2", {})


def test_a_template_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.j2 cannot be filled"):
        validated.rendered(folder / "nothing.j2", {})
