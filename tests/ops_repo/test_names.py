"""Names are read without code, and are names: they become paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyinfra_solo.errors import RoleError
from pyinfra_solo.ops_repo.names import checked_name, roles, stages, unknown
from tests.support.ops_repo import write

ODD = {
    "a path": "../../etc",
    "an absolute path": "/etc/passwd",
    "a folder below": "web/../base",
    "nothing": "",
    "a space": " ",
    "two words": "web base",
    "upper case": "Web",
    "a digit first": "1web",
    "a dash first": "-web",
    "a module": "web.os",
    "a new line": "web\n",
    "a line above": "\nweb",
    "a NUL": "web\x00",
    "an escape": "\x1b[2Jweb",
    "a Cyrillic letter": "w\u0435b",
    "a fullwidth letter": "\uff57eb",
    "a ligature": "\ufb00",
    "a right-to-left mark": "web\u202e",
    "a zero-width space": "w\u200beb",
    "an Arabic digit": "web\u0661",
    "a lone surrogate": "web\udcff",
    "too long": "w" * 64,
    "256 odd characters": "\u2603\U0001f4a9'\"\\;$(){}" * 21 + "12345",
    "a format": "{name}",
    "a shell": "$(reboot)",
}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
@pytest.mark.parametrize("kind", ["role", "stage"])
def test_other_text_is_refused_in_one_printable_line(kind: str, name: str) -> None:
    with pytest.raises(RoleError) as caught:
        checked_name(kind, name, "the tag")
    said = str(caught.value)

    assert said.startswith(f"The {kind} ")
    assert "is not a name: use a-z" in said
    assert said.isprintable()
    assert len(said) < 800


def test_a_cyrillic_letter_is_shown_by_its_code() -> None:
    with pytest.raises(RoleError, match=r"w\\u0435b"):
        checked_name("role", "w\u0435b", "the tag Role")


def test_an_unknown_name_is_an_error_that_lists_the_known_ones() -> None:
    assert str(unknown("role", "wbe", ["base", "web"])) == (
        "There is no role 'wbe'. Did you mean 'web'? Roles here: base, web."
    )
    assert str(unknown("stage", "x", [])) == "There is no stage 'x'. Stages here: none."


def test_a_role_is_a_package_below_roles(tmp_path: Path) -> None:
    files = ("roles/__init__.py", "roles/web/__init__.py", "roles/notes/readme.txt", "roles/a.py")
    write(tmp_path, dict.fromkeys(files, "1 / 0"))

    assert roles(tmp_path) == ["web"]
    assert roles(tmp_path / "nowhere") == []


def test_a_stage_is_an_inventory_file(tmp_path: Path) -> None:
    files = ("__init__.py", "staging.py", "production.py", "notes.txt", "group_data/all.py")
    write(tmp_path, {f"inventories/{name}": "1 / 0" for name in files})

    assert stages(tmp_path) == ["production", "staging"]
    assert stages(tmp_path / "nowhere") == []
