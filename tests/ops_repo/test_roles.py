"""Roles are loaded by their folders' names, needed ones first, and a wrong one is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.errors import ConvergeError, DataError, RoleError, SoloError
from pyinfra_solo.ops_repo.names import checked_name
from pyinfra_solo.ops_repo.roles import load, with_needs
from pyinfra_solo.role import Role, role
from tests.support.machine import REPOSITORY
from tests.support.ops_repo import write


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
def test_a_circle_or_an_unknown_need_is_an_error(roles: list[Role], said: str) -> None:
    with pytest.raises(RoleError, match=said):
        with_needs("web", named(*roles))


def test_a_role_is_loaded_by_the_name_of_its_folder(tree: Path) -> None:
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
        (
            "raise SystemExit(0)\n",
            ConvergeError,
            r"roles/web/__init__.py cannot be loaded: it called sys.exit\(0\) \(roles/web/__init__.py:1\)",
        ),
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


def test_shipped_roles_have_names_and_no_circle(tree: Path) -> None:
    del tree  # for what it forgets
    found = load(REPOSITORY)

    for name in found:
        assert checked_name("role", name, "roles/") == name
        assert with_needs(name, found)[-1].name == name
