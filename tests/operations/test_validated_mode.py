"""The mode and the owner of a validated file are converged, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations import validated
from tests.support.pyinfra_api import Played, play


def put_with(folder: Path, validate: str, **options: Any) -> Played:
    (folder / "site.j2").write_text("same\n")
    return play(
        lambda: validated.template(
            name="site", src="site.j2", dest=str(folder / "site"), validate=validate, **options
        ),
        folder,
    )


def put(folder: Path, **options: Any) -> Played:
    return put_with(folder, "true", **options)


@pytest.mark.parametrize("mode", ["600", "0600"])
def test_another_mode_is_a_change_when_the_contents_are_the_same(tmp_path: Path, mode: str) -> None:
    put(tmp_path)

    assert put(tmp_path, mode=mode).made == ("site",)
    assert (tmp_path / "site").stat().st_mode & 0o7777 == 0o600
    assert put(tmp_path, mode=mode).made == ()
    (tmp_path / "site").chmod(0o777)
    assert put(tmp_path, mode=mode).made == ("site",)
    assert (tmp_path / "site").stat().st_mode & 0o7777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="changes an owner")
def test_another_owner_is_a_change_where_one_is_wanted(tmp_path: Path) -> None:
    put(tmp_path)
    os.chown(tmp_path / "site", 65534, 65534)

    assert put(tmp_path).made == ()
    assert put(tmp_path, user="root", group="daemon").made == ("site",)
    assert ((tmp_path / "site").owner(), (tmp_path / "site").group()) == ("root", "daemon")
    assert put(tmp_path, user="root", group="daemon").made == ()


def test_a_template_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.j2").write_text("one\n{{ missing.part }}\n")
    with pytest.raises(DataError, match=r"bad\.j2 cannot be filled: .* \(line 2\)\."):
        validated.rendered(tmp_path / "bad.j2", {})


@pytest.mark.skipif(os.geteuid() != 0, reason="changes an owner")
def test_the_owner_to_be_cannot_change_a_file_while_it_is_validated(open_folder: Path) -> None:
    """In a folder of its own, where it has planted the file that will be validated."""
    new = open_folder / f"site{validated.UNVALIDATED}"
    new.write_text("planted")
    new.chmod(0o666)
    for path in (open_folder, new):
        os.chown(path, 65534, 65534)
    validate = 'setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \'cat "$0"; echo evil >>"$0"\' "$FILE" || true'
    played = put_with(open_folder, validate, mode="664", user="nobody", group="nogroup")
    assert (played.made, played.failed) == (("site",), "")
    about = (open_folder / "site").stat()
    assert (oct(about.st_mode), about.st_uid, about.st_gid) == ("0o100664", 65534, 65534)
    assert (open_folder / "site").read_text() == "same\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes an owner")
def test_a_file_that_is_exchanged_while_it_is_validated_is_refused(open_folder: Path) -> None:
    """The owner of the folder can put another file in its place."""
    os.chown(open_folder, 65534, 65534)
    validate = (
        "setpriv --reuid=65534 --regid=65534 --clear-groups "
        'sh -c \'echo evil >"$0-evil"; mv -f "$0-evil" "$0"\' "$FILE"'
    )
    played = put_with(open_folder, validate, mode="644", user="root")
    assert played.failed == "site"
    assert "is refused: another account can change it or has exchanged it" in played.text
    assert {path.name for path in open_folder.iterdir()} == {"site.j2"}
