"""Values: role defaults, then group data, then flags; a wrong one is named with its file and key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from pyinfra_solo.errors import DataError, RoleError
from pyinfra_solo.ops_repo.values import bind, check_declared, layered, provenance, secrets
from pyinfra_solo.role import Role, Secret, keys, role
from tests.support.ops_repo import write

HIDDEN = "correct horse battery staple"


@dataclass(frozen=True, kw_only=True)
class Web:
    app_name: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 80
    ratio: float = 0.5
    ipv6: bool = False
    mode: Literal["fast", "safe"] = "safe"
    hosts: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int | str = "auto"
    token: Secret = ""
    password: Secret | None = None
    keys: Mapping[str, Secret] = field(default_factory=dict)
    pins: Sequence[Secret] = ()


def nothing(data: object) -> None:
    raise AssertionError(data)


WEB: Role = replace(role(data=Web)(nothing), name="web")
ROLES = {"web": WEB}


def tree(root: Path, common: str = "app_name = 'shop'\n", staging: str = "") -> Path:
    return write(
        root,
        {
            "inventories/staging.py": "hosts = []\n",
            "inventories/production.py": "hosts = []\n",
            "inventories/group_data/all.py": common,
            "inventories/group_data/staging.py": staging,
        },
    )


def bound(root: Path, **flags: str) -> Web:
    made = bind(WEB, layered(root, "staging", flags, ROLES))
    assert isinstance(made, Web)
    return made


def refusal(root: Path, **flags: str) -> str:
    with pytest.raises(DataError) as caught:
        bound(root, **flags)
    return str(caught.value)


def test_an_unknown_stage_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RoleError, match=r"There is no stage 'stagin'\. Did you mean 'staging'"):
        layered(tree(tmp_path), "stagin", {}, ROLES)


def test_a_role_s_defaults_hold_where_nothing_else_is_set(tmp_path: Path) -> None:
    assert bound(tree(tmp_path)) == Web(app_name="shop")


def test_a_stage_overrides_all_and_a_flag_overrides_both(tmp_path: Path) -> None:
    tree(tmp_path, "app_name = 'shop'\nport = 1\nratio = 1.0\nipv6 = False\n", "port = 2\nratio = 2.0\n")
    values = layered(tmp_path, "staging", {"port": "3"}, ROLES)

    assert (values["port"].value, values["ratio"].value, values["ipv6"].value) == (3, 2.0, False)
    assert provenance(WEB, values) == {
        **dict.fromkeys(keys(WEB), "the role's default"),
        "app_name": "inventories/group_data/all.py",
        "port": "the flag --data",
        "ratio": "inventories/group_data/staging.py",
        "ipv6": "inventories/group_data/all.py",
    }


def test_a_repository_without_group_data_has_the_defaults(tmp_path: Path) -> None:
    write(tmp_path, {"inventories/staging.py": "hosts = []\n"})

    assert bound(tmp_path, app_name="shop") == Web(app_name="shop")


def test_a_missing_value_without_a_default_is_named(tmp_path: Path) -> None:
    assert "The role 'web' needs a value for 'app_name'. Set it in inventories/group_data" in refusal(
        tree(tmp_path, "")
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("prot = 80", "no role has a value 'prot'. Did you mean 'port'?"),
        ("zzz = 1", "no role has a value 'zzz'. Values here: app_name, environment"),
        ("port = '80'", "'port' of the role 'web': Expected `int`, got `str`"),
        ("port = 0", "'port' of the role 'web': Expected `int` >= 1"),
        ("port = 80.5", "'port' of the role 'web': Expected `int`, got `float`"),
        ("port = True", "'port' of the role 'web': Expected `int`, got `bool`"),
        ("port = None", "'port' of the role 'web': Expected `int`, got `null`"),
        ("ipv6 = 1", "'ipv6' of the role 'web': Expected `bool`, got `int`"),
        ("mode = 'quick'", "'mode' of the role 'web': Invalid enum value"),
        ("hosts = 'a.example.com'", "'hosts' of the role 'web': Expected `array`, got `str`"),
        ("hosts = ['a', 3]", "'hosts' of the role 'web': Expected `str`, got `int`"),
        ("environment = {'A': 1}", "'environment' of the role 'web': Expected `str`, got `int`"),
        ("app_name = object()", "'app_name' of the role 'web': Expected `str`"),
    ],
)
@pytest.mark.parametrize("where", ["all", "staging"])
def test_a_wrong_key_or_value_is_named_with_its_file(
    tmp_path: Path, line: str, said: str, where: str
) -> None:
    tree(tmp_path, **{"common" if where == "all" else "staging": f"app_name = 'shop'\n{line}\n"})

    assert refusal(tmp_path).startswith(f"inventories/group_data/{where}.py: {said}")


@pytest.mark.parametrize(
    "text",
    ["port = (", "import no_such_module_here", "port = 1 / 0", b"app_name = '\xff'", "raise SystemExit(0)"],
)
def test_group_data_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes) -> None:
    path = tree(tmp_path) / "inventories/group_data/staging.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    assert "inventories/group_data/staging.py cannot be read: " in refusal(tmp_path)


def test_imports_and_functions_of_group_data_are_no_values(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "import os\nfrom pathlib import Path\n_base = 8000\ndef near(n):\n    return _base + n\nport = near(1)\napp_name = 'x'\n",
    )

    assert bound(tmp_path).port == 8001


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("port", "8080", 8080),
        ("ratio", "1", 1.0),
        ("ipv6", "true", True),
        ("mode", "fast", "fast"),
        ("app_name", "", ""),
        ("app_name", "[1]", "[1]"),
        ("app_name", "80", "80"),
        ("app_name", "a=b", "a=b"),
        ("hosts", '["a", "b"]', ["a", "b"]),
        ("environment", '{"A": "1"}', {"A": "1"}),
        ("workers", "auto", "auto"),
        ("token", "[1]", "[1]"),
        ("token", '{"a": 1}', '{"a": 1}'),
        ("password", "{x", "{x"),
    ],
)
def test_a_flag_is_read_as_its_value_s_type(tmp_path: Path, key: str, text: str, value: Any) -> None:
    tree(tmp_path)

    assert getattr(bound(tmp_path, **{key: text}), key) == value


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("port", "http", "Expected `int`, got `str`"),
        ("port", "0", "Expected `int` >= 1"),
        ("port", "", "Expected `int`, got `str`"),
        ("hosts", "a,b", "Expected `array`, got `str`"),
        ("hosts", "[a]", "it is not JSON"),
        ("hosts", "[1]", "Expected `str`, got `int`"),
        ("environment", '{"A": 1}', "Expected `str`, got `int`"),
    ],
)
def test_a_flag_that_is_not_of_its_type_is_refused(tmp_path: Path, key: str, text: str, said: str) -> None:
    assert refusal(tree(tmp_path), **{key: text}).startswith(
        f"the flag --data: {key!r} of the role 'web': {said}"
    )


def test_a_flag_that_no_role_knows_is_refused(tmp_path: Path) -> None:
    assert refusal(tree(tmp_path), prot="80").startswith("the flag --data: no role has a value 'prot'")


@pytest.mark.parametrize(
    "lines",
    [
        f"token = ['{HIDDEN}']",
        f"token = {{'{HIDDEN}': 1}}",
        f"token = b'{HIDDEN}'",
        f"keys = {{'a': ['{HIDDEN}']}}",
        f"keys = '{HIDDEN}'",
        f"password = ('{HIDDEN}',)",
        f"pins = ['a', ['{HIDDEN}']]",
        f"tokn = '{HIDDEN}'",
        f"token = '{HIDDEN}\n",
    ],
)
def test_an_error_never_shows_a_secret(tmp_path: Path, lines: str) -> None:
    tree(tmp_path, f"app_name = 'shop'\n{lines}\n")
    with pytest.raises(DataError) as caught:
        bound(tmp_path)

    assert "inventories/group_data/all.py" in str(caught.value)
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("key", ["keys", "pins", "port", "tokn"])
def test_an_error_about_a_flag_never_shows_its_value(tmp_path: Path, key: str) -> None:
    assert HIDDEN not in refusal(tree(tmp_path), **{key: HIDDEN})


def test_secrets_are_each_value_and_each_one_of_a_list_or_a_table(tmp_path: Path) -> None:
    """They are taken out of what is shown as text: of a table its values, not how Python writes it."""
    tree(
        tmp_path,
        "app_name = 'shop'\ntoken = 'one'\npassword = 'two'\nkeys = {'a': 'three'}\npins = ['four', '']\n",
    )

    assert secrets(WEB, bound(tmp_path)) == ["one", "two", "three", "four"]


def test_an_empty_value_is_no_secret(tmp_path: Path) -> None:
    """An empty text is part of every other one: taking it out would change everything."""
    assert secrets(WEB, bound(tree(tmp_path))) == []


def test_two_roles_may_share_a_value_of_one_type() -> None:
    @dataclass(frozen=True)
    class Same:
        port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080

    check_declared([WEB, role(data=Same)(nothing)])


def test_two_roles_may_not_give_a_value_two_types() -> None:
    @dataclass(frozen=True)
    class Other:
        port: str = "http"

    with pytest.raises(DataError, match="both have a value 'port', of different types"):
        check_declared([WEB, role(data=Other)(nothing)])


def test_a_value_of_another_role_is_no_error_and_not_passed(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Worker:
        queue: str = "default"

    worker = role(data=Worker)(nothing)
    values = layered(
        tree(tmp_path, "app_name = 'shop'\nqueue = 'mail'\n"), "staging", {}, {"web": WEB, "worker": worker}
    )

    assert bind(WEB, values) == Web(app_name="shop")
    assert bind(worker, values) == Worker(queue="mail")
