"""Exactly one role and one stage, or an error that names every candidate and where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyinfra_solo.errors import DataError, RoleError, SoloError
from pyinfra_solo.stations.identify import Instance
from pyinfra_solo.stations.resolve import Candidate, Choice, resolve, stage_of
from tests.ops_repo.test_names import ODD
from tests.support.machine import REPOSITORY
from tests.support.ops_repo import write

MAP = '[security_groups]\n"web" = "web"\n"*-web" = "web"\n"worker" = "worker"\n'
STAGE = Candidate(name="staging", source="the tag Stage")


def machine(*groups: str, **tags: str) -> Instance:
    return Instance(on_ec2=True, id="i-0a1", security_groups=groups, tags=tags)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Only names count here: a role that cannot be loaded is a role."""
    files = {f"roles/{name}/__init__.py": "1 / 0" for name in ("base", "web", "worker")}
    return write(
        tmp_path,
        {**files, "roles/roles.toml": MAP, "inventories/staging.py": "", "inventories/production.py": ""},
    )


def role_of(tree: Path, instance: Instance, flag: str | None = None, setting: str | None = None) -> Candidate:
    return resolve(tree, flag, setting, STAGE, instance).role


def refusal(
    tree: Path, instance: Instance, flag: str | None = None, kind: type[SoloError] = RoleError
) -> str:
    with pytest.raises(kind) as caught:
        role_of(tree, instance, flag)
    return str(caught.value)


@pytest.mark.parametrize(
    ("flag", "setting", "tags", "winner"),
    [
        ("a", "b", {"Stage": "c"}, ("a", "the flag --stage")),
        (None, "b", {"Stage": "c"}, ("c", "the tag Stage")),
        (None, "b", {}, ("b", "machine.stage in the settings")),
    ],
)
def test_stage_comes_from_flag_then_tag_then_settings(
    flag: str | None, setting: str | None, tags: dict[str, str], winner: tuple[str, str]
) -> None:
    found = stage_of(flag, setting, machine(**tags))

    assert (found.name, found.source) == winner


def test_stage_of_the_settings_outranks_the_tag_off_ec2() -> None:
    """Who answers as a metadata service there is unknown."""
    found = stage_of(None, "b", Instance(on_ec2=False, tags={"Stage": "c"}))

    assert (found.name, found.source) == ("b", "machine.stage in the settings")
    assert stage_of(None, None, Instance(on_ec2=False, tags={"Stage": "c"})).name == "c"
    assert stage_of("a", "b", Instance(on_ec2=False, tags={"Stage": "c"})).name == "a"


def test_machine_without_a_stage_is_an_error_with_what_to_set() -> None:
    with pytest.raises(
        RoleError, match=r"Set a tag Stage, set machine\.stage in the settings, or use --stage"
    ):
        stage_of(None, None, machine())


@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_text_that_is_no_name_is_refused_from_every_source(tree: Path, name: str) -> None:
    for flag, setting, tags in (
        (name, None, {}),
        (None, name, {}),
        (None, None, {"Stage": name, "Role": name}),
    ):
        with pytest.raises(RoleError, match="is not a name"):
            stage_of(flag, setting, machine(**tags))
        with pytest.raises(RoleError, match="is not a name"):
            resolve(tree, flag, setting, STAGE, machine(**tags))


def test_empty_tag_is_an_error_and_not_absent(tree: Path) -> None:
    """A template has lost its variable; the security group would make the machine another role."""
    assert refusal(tree, machine("web", Role="")).startswith("The role '' from the tag Role is not a name")


def test_unknown_stage_is_an_error_with_its_source(tree: Path) -> None:
    with pytest.raises(RoleError) as caught:
        resolve(tree, "web", None, Candidate(name="prod", source="the tag Stage"), machine())
    message = str(caught.value)

    assert "There is no stage 'prod'." in message
    assert "Stages here: production, staging." in message
    assert "(It is 'prod' from the tag Stage.)" in message


@pytest.mark.parametrize(
    ("flag", "setting", "tags", "winner"),
    [
        ("base", "web", {"Role": "worker"}, ("base", "the flag --role")),
        (None, "web", {"Role": "worker"}, ("web", "machine.role in the settings")),
        (None, None, {"Role": "worker"}, ("worker", "the tag Role")),
        (None, None, {}, ("web", "the security group 'acme-web' ('*-web' in roles/roles.toml)")),
    ],
)
def test_role_comes_from_flag_then_settings_then_tag_then_groups(
    tree: Path, flag: str | None, setting: str | None, tags: dict[str, str], winner: tuple[str, str]
) -> None:
    found = role_of(tree, machine("default", "acme-web", **tags), flag, setting)

    assert (found.name, found.source) == winner


def test_choice_has_role_and_stage_with_their_sources(tree: Path) -> None:
    assert resolve(tree, None, None, STAGE, machine(Role="web")) == Choice(
        role=Candidate(name="web", source="the tag Role"), stage=STAGE
    )


def test_several_groups_of_one_role_are_one_role(tree: Path) -> None:
    assert role_of(tree, machine("web", "acme-web")).name == "web"


def test_several_roles_are_an_error_with_the_group_of_each(tree: Path) -> None:
    message = refusal(tree, machine("acme-web", "worker", "default"))

    assert message.startswith("This machine has several roles: ")
    assert "'web' from the security group 'acme-web' ('*-web' in roles/roles.toml)" in message
    assert "'worker' from the security group 'worker'" in message
    assert "Set a tag Role with the right one." in message


def test_machine_without_a_role_is_an_error_with_groups_and_roles(tree: Path) -> None:
    message = refusal(tree, machine("default", "Web"))

    assert "maps none of its security groups (default, Web)" in message
    assert "Roles here: base, web, worker." in message
    assert "(none)" in refusal(tree, machine())


def test_unknown_role_is_an_error_with_its_source_and_the_nearest(tree: Path) -> None:
    message = refusal(tree, machine(Role="wbe"))

    assert "There is no role 'wbe'. Did you mean 'web'? Roles here: base, web, worker." in message
    assert "(It is 'wbe' from the tag Role.)" in message


def test_unknown_role_of_the_map_is_an_error_with_its_group(tree: Path) -> None:
    write(tree, {"roles/roles.toml": '[security_groups]\n"default" = "wbe"\n'})

    assert "'wbe' from the security group 'default' ('default' in roles/roles.toml)" in refusal(
        tree, machine("default")
    )


def test_ops_repo_without_a_map_has_no_role_by_groups(tree: Path) -> None:
    (tree / "roles/roles.toml").unlink()

    assert "has no role" in refusal(tree, machine("web"))
    assert role_of(tree, machine("web", Role="web")).name == "web"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[security_groups", "roles/roles.toml cannot be read"),
        (b"\xff\xfe", "roles/roles.toml cannot be read"),
        ("[security_group]\n", "roles/roles.toml is invalid. It holds one table, [security_groups]"),
        ("security_groups = 'web'\n", "roles/roles.toml is invalid."),
        ("[security_groups]\nweb = ['web']\n", "roles/roles.toml is invalid."),
        ("[security_groups.web]\nrole = 'web'\n", "roles/roles.toml is invalid."),
    ],
)
def test_invalid_map_is_an_error(tree: Path, text: str | bytes, message: str) -> None:
    (tree / "roles/roles.toml").write_bytes(text if isinstance(text, bytes) else text.encode())

    assert message in refusal(tree, machine("web"), kind=DataError)


def test_folder_in_place_of_the_map_is_an_error(tree: Path) -> None:
    (tree / "roles/roles.toml").unlink()
    (tree / "roles/roles.toml").mkdir()

    assert "cannot be read" in refusal(tree, machine("web"), kind=DataError)


def test_map_of_this_repository_names_its_roles() -> None:
    for group in ("web", "acme-web", "worker", "acme-worker"):
        assert resolve(REPOSITORY, None, None, STAGE, machine(group)).role.name in group
