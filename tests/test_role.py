"""A role is a declaration; names become paths, so they are names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.errors import ConvergeError, DataError, RoleError, SoloError
from pyinfra_solo.role import NoData, Role, checked_name, keys, load, names, role, unknown, with_needs
from tests.support.machine import REPOSITORY
from tests.support.ops_repo import write


@dataclass(frozen=True)
class Web:
    port: int = 80
    workers: int = 2


def declared(name: str, *needs: str) -> Role:
    def operations(data: Any) -> None:
        raise AssertionError(data)

    operations.__name__ = name
    return role(needs=needs)(operations)


def named(*roles: Role) -> dict[str, Role]:
    return {one.name: one for one in roles}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A repository of its own: what an earlier test imported from `roles` is forgotten."""
    before, path = dict(sys.modules), list(sys.path)

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "roles"]:
            del sys.modules[name]

    forget()
    yield tmp_path
    forget()
    sys.modules.update({name: module for name, module in before.items() if name.partition(".")[0] == "roles"})
    sys.path[:] = path


GOOD = "from pyinfra_solo.role import role\n@role()\ndef {name}(data):\n    raise AssertionError\n"

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


@pytest.mark.parametrize("name", ["web", "a", "web-2", "job_worker", "w" * 63])
def test_a_name_is_a_letter_and_then_letters_digits_dashes(name: str) -> None:
    assert checked_name("role", name, "the tag Role") == name


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
@pytest.mark.parametrize("kind", ["role", "stage"])
def test_what_is_not_a_name_is_refused_in_one_printable_line(kind: str, name: str) -> None:
    with pytest.raises(RoleError) as caught:
        checked_name(kind, name, "the tag")
    said = str(caught.value)

    assert said.startswith(f"The {kind} ")
    assert "is not a name: use a-z" in said
    assert said.isprintable()
    assert len(said) < 800


def test_a_look_alike_letter_is_shown_for_what_it_is() -> None:
    with pytest.raises(RoleError, match=r"w\\u0435b"):
        checked_name("role", "w\u0435b", "the tag Role")


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    assert str(unknown("role", "wbe", ["base", "web"])) == (
        "There is no role 'wbe'. Did you mean 'web'? Roles here: base, web."
    )
    assert str(unknown("stage", "x", [])) == "There is no stage 'x'. Stages here: none."


def test_declaring_a_role_runs_nothing() -> None:
    made = declared("web", "base")

    assert (made.name, made.needs, made.data) == ("web", ("base",), NoData)
    assert list(made.healthy(NoData())) == []
    with pytest.raises(AssertionError):
        made.operations(NoData())


def test_a_misspelt_word_in_a_declaration_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="need"):
        role(need=["base"])  # type: ignore[call-arg]


def test_data_that_is_no_dataclass_is_refused() -> None:
    with pytest.raises(DataError, match="A role's data is a frozen dataclass"):
        role(data=dict)


def test_the_keys_of_a_role_are_its_fields() -> None:
    assert keys(role(data=Web)(lambda _data: None)) == ["port", "workers"]


def test_needed_roles_come_first_and_once() -> None:
    roles = named(
        declared("base"), declared("proxy", "base"), declared("app", "base"), declared("web", "proxy", "app")
    )

    assert [one.name for one in with_needs("web", roles)] == ["base", "proxy", "app", "web"]


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ([declared("web", "web")], "web -> web"),
        ([declared("web", "app"), declared("app", "db"), declared("db", "web")], "web -> app -> db -> web"),
        ([declared("web", "bsae"), declared("base")], "There is no role 'bsae'. Did you mean 'base'"),
    ],
)
def test_roles_that_need_what_cannot_be_are_refused(roles: list[Role], said: str) -> None:
    with pytest.raises(RoleError, match=said):
        with_needs("web", named(*roles))


def test_a_role_is_a_folder_with_a_declaration(tree: Path) -> None:
    write(
        tree,
        {
            "roles/__init__.py": "",
            "roles/web/__init__.py": "",
            "roles/notes/readme.txt": "",
            "roles/a.py": "",
        },
    )

    assert names(tree) == ["web"]
    assert names(tree / "nowhere") == []


def test_roles_are_loaded_by_the_name_of_their_folder(tree: Path) -> None:
    write(tree, {"roles/__init__.py": "", "roles/job-worker/__init__.py": GOOD.format(name="job_worker")})
    found = load(tree)

    assert list(found) == ["job-worker"]
    assert found["job-worker"].name == "job-worker"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (
            "def web(:\n",
            ConvergeError,
            r"roles/web/__init__.py cannot be loaded: .*__init__.py:1\). Correct it",
        ),
        ("import no_such_module_here\n", ConvergeError, "No module named 'no_such_module_here'"),
        ("1 / 0\n", ConvergeError, "division by zero"),
        ("raise SystemExit(0)\n", ConvergeError, "roles/web/__init__.py cannot be loaded: 0"),
        (b"x = '\xff\xfe'\n", ConvergeError, "roles/web/__init__.py cannot be loaded"),
        ("", DataError, "declares no role 'web'. Write `@role\\(\\)` above `def web\\(data\\)`"),
        ("def web(data):\n    pass\n", DataError, "declares no role 'web'"),
        ("web = 3\n", DataError, "declares no role 'web'"),
        (GOOD.format(name="wbe"), DataError, "declares no role 'web'"),
        (
            "from pyinfra_solo.role import role\n@role\ndef web(data):\n    pass\n",
            ConvergeError,
            "positional",
        ),
    ],
)
def test_a_role_that_cannot_be_loaded_is_named_with_the_reason(
    tree: Path, text: str | bytes, kind: type[SoloError], said: str
) -> None:
    """Also one that ends the process: exit status 0 means ready, and this is not."""
    write(tree, {"roles/__init__.py": "", "roles/web/__init__.py": ""})
    (tree / "roles/web/__init__.py").write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(kind, match=said):
        load(tree)


def test_the_roles_that_are_shipped_are_names_and_need_each_other_in_no_circle(tree: Path) -> None:
    del tree  # for what it forgets
    found = load(REPOSITORY)

    for name in found:
        assert checked_name("role", name, "roles/") == name
        assert with_needs(name, found)[-1].name == name
