"""Root writes into a folder of another account, and that account gets no file of root's by it.

Native or not: a chown(1) by a shell could not be safe.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import StringCommand
from pyinfra.operations import files

from pyinfra_solo.executor.connector import LocalConnector
from tests.support import both_ways as ways
from tests.support.files import deep_folder
from tests.support.machine import REPOSITORY
from tests.support.pyinfra_api import play_in

NOBODY = 65534
ROUNDS = 300
MOST_ROUNDS = 40 * ROUNDS
GIVE_AWAY = ("chown nobody", "chown -R nobody", "chmod 777", "chmod -R a+rwX")


@pytest.fixture
def victim(open_folder: Path) -> Path:
    """A file of root's that every account can reach."""
    (open_folder / "roots").mkdir()
    path = open_folder / "roots/conf"
    path.write_text("root's")
    path.chmod(0o644)
    ways.age(open_folder / "roots")
    return path


@pytest.fixture
def home(open_folder: Path) -> Path:
    """A folder of the account `nobody`."""
    path = open_folder / "home"
    (path / "sub").mkdir(parents=True)
    for one in (path, path / "sub"):
        os.chown(one, NOBODY, NOBODY)
    return path


@contextmanager
def swapping(home: Path, victim: Path) -> Iterator[None]:
    """Have `nobody` exchange names in its folder meanwhile."""
    script = (REPOSITORY / "tests/support/scripts/swapper.py").read_text()
    swapper = subprocess.Popen(
        ["/usr/bin/python3", "-c", script, home, victim],
        user=NOBODY, group=NOBODY, extra_groups=[], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert swapper.stdout
    try:
        assert swapper.stdout.readline() == "began\n"
        yield
        assert swapper.poll() is None, "it ended by itself"
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()


def put_for_nobody(connector: LocalConnector, path: Path, **arguments: Any) -> str:
    """Run what files.put(user="nobody", mode="640") runs, and return how it ended."""
    try:
        connector.put_file(StringIO("nobody's"), str(path), **arguments)
        for command in ("chown nobody:nogroup", "chmod u=rw,g=r,o=", "touch -m -d 2020-01-01T00:00:00Z"):
            done, output = connector.run_shell_command(StringCommand(f"{command} {path}"), **arguments)
            if not done:
                return "refused" if "is refused: " in output.stderr else "failed"
        connector.pending.rename_into_place()
    except OSError as error:
        return "refused" if "is refused: " in str(error) else "failed"
    return "done"


@pytest.mark.parametrize("arguments", [{}, {"_sudo": True}], ids=["plain", "sudo"])
@pytest.mark.parametrize("native", [True, False], ids=["native", "no-native"])
def test_an_account_that_swaps_names_gets_no_file_of_root(
    native: bool, arguments: dict[str, Any], home: Path, victim: Path
) -> None:
    """It tries while root writes and gives away files in its folder."""
    connector = ways.connector_of(ways.our_state(native=native))
    before, ended = ways.tree(victim.parent), Counter[str]()
    with swapping(home, victim):
        for number in range(MOST_ROUNDS):
            # How often a swap comes in time depends on what else the processors do.
            if number >= ROUNDS and min(ended["done"], ended["refused"]) > 10:
                break
            connector.pending.defer_rename = number % 3 > 0
            ended[put_for_nobody(connector, home / ("conf", "sub/conf")[number % 2], **arguments)] += 1
            given_away = f"{home}{('', '/conf', '/sub')[number % 3]}"
            connector.run_shell_command(StringCommand(f"{GIVE_AWAY[number % 4]} {given_away}"), **arguments)
            assert ways.tree(victim.parent) == before, f"round {number}, {ended}"
    assert ended["done"] > 10, ended
    assert ended["refused"] > 10, ended


Plant = Callable[[Path, Path], None]


def plant_link(home: Path, victim: Path) -> None:
    (home / "conf").symlink_to(victim)
    os.chown(home / "conf", NOBODY, NOBODY, follow_symlinks=False)


def plant_relative_link(home: Path, victim: Path) -> None:
    (home / "conf").symlink_to(f"../{victim.parent.name}/{victim.name}")
    os.chown(home / "conf", NOBODY, NOBODY, follow_symlinks=False)


def plant_folder(home: Path, victim: Path) -> None:
    """Below which the same name is root's."""
    (home / "sub").rmdir()
    (home / "sub").symlink_to(victim.parent)
    os.chown(home / "sub", NOBODY, NOBODY, follow_symlinks=False)


def plant_hard_link(home: Path, victim: Path) -> None:
    """Where fs.protected_hardlinks is 0, an account can do it itself."""
    os.link(victim, home / "conf")


def move_roots_link(home: Path, victim: Path) -> None:
    """Root made it under another name; the folder's owner moved it."""
    (home / "roots-link").symlink_to(victim)
    subprocess.run(
        ["mv", home / "roots-link", home / "conf"], user=NOBODY, group=NOBODY, extra_groups=[], check=True
    )


PLANTS: dict[str, tuple[Plant, str]] = {
    "a link": (plant_link, "conf"),
    "a relative link": (plant_relative_link, "conf"),
    "a link to a folder": (plant_folder, "sub/conf"),
    "a hard link": (plant_hard_link, "conf"),
    "a moved link": (move_roots_link, "conf"),
}


def each_operation(path: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Operations that write `path` or give it away."""
    whose: dict[str, Any] = {"user": "nobody", "group": "nogroup"}
    yield (
        "put",
        partial(files.put, src=StringIO("new"), dest=path, mode="640", create_remote_dir=False, **whose),
    )
    yield "put without more", partial(files.put, src=StringIO("new"), dest=path, create_remote_dir=False)
    yield (
        "put by sudo",
        partial(files.put, src=StringIO("new"), dest=path, create_remote_dir=False, _sudo=True),
    )
    yield "touch", partial(files.file, path=path, touch=True)
    yield "get", partial(files.get, src=path, dest=f"{path}.got")


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("native", [True, False], ids=["native", "no-native"])
def test_a_planted_link_is_refused(native: bool, plant: str, home: Path, victim: Path) -> None:
    """The operation fails, and what is root's stays as it was."""
    make, name = PLANTS[plant]
    make(home, victim)
    before, ended = ways.tree(victim.parent), {}
    for what, operation in each_operation(f"{home}/{name}"):
        ended[what] = bool(play_in(ways.our_state(native=native), operation).failed)
        assert ways.tree(victim.parent) == before, what
    # pyinfra itself refuses to touch a path that is a link.
    assert ended == dict.fromkeys(ended, True)


@pytest.mark.parametrize(
    "command",
    [
        "chown nobody",
        "chgrp nogroup",
        "chown 65534:65534",
        "chmod 666",
        "chmod o+w",
        "chmod -R 666",
        "touch",
        "touch -m -d 2020-01-01T00:00:00Z",
    ],
)
@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("native", [True, False], ids=["native", "no-native"])
def test_a_command_refuses_a_planted_link(
    native: bool, plant: str, command: str, home: Path, victim: Path
) -> None:
    make, name = PLANTS[plant]
    make(home, victim)
    before = ways.tree(victim.parent)
    connector = ways.connector_of(ways.our_state(native=native))
    done, output = connector.run_shell_command(StringCommand(f"{command} {home}/{name}"))
    assert not done
    assert f"{home}/{name.partition('/')[0]} is refused: this " in output.stderr
    assert "nobody" in output.stderr
    assert "_su_user" in output.stderr
    assert ways.tree(victim.parent) == before


@pytest.mark.parametrize(
    "command", ["rm -f {}/sub/conf", "touch {}/sub/new", "mkdir -p {}/sub/new/er", "ln -s x {}/sub/new"]
)
def test_a_planted_folder_is_not_entered(command: str, home: Path, victim: Path) -> None:
    plant_folder(home, victim)
    before = ways.tree(victim.parent)
    connector = ways.connector_of(ways.our_state(native=False))
    done, output = connector.run_shell_command(StringCommand(command.format(home)))
    assert not done
    assert f"{home}/sub is refused: this link of nobody" in output.stderr
    assert ways.tree(victim.parent) == before


def test_links_of_root_work_as_ever(home: Path, victim: Path, open_folder: Path) -> None:
    """In root's folder, and in one for all with the sticky bit."""
    connector = ways.connector_of(ways.our_state(native=True))
    (open_folder / "all").mkdir()
    (open_folder / "all").chmod(0o1777)
    (open_folder / "all/link").symlink_to(victim)
    (open_folder / "link").symlink_to("home")
    for path in (open_folder / "all/link", open_folder / "link/new"):
        connector.put_file(StringIO("new"), str(path))
    assert {path.read_text() for path in (victim, home / "new")} == {"new"}


def test_an_account_s_own_hard_link_can_be_given_rights(home: Path) -> None:
    """Its contents are the account's own before and after."""
    (home / "one").write_text("old")
    os.chown(home / "one", NOBODY, NOBODY)
    os.link(home / "one", home / "two")
    connector = ways.connector_of(ways.our_state(native=True))
    assert connector.run_shell_command(StringCommand(f"chmod 640 {home}/one"))[0]


def test_a_tree_is_changed_however_deep_it_is(home: Path) -> None:
    """An account could keep root out by a tree that is deeper than descriptors or a path may be."""
    folder = deep_folder(home)
    connector = ways.connector_of(ways.our_state(native=False))
    done, output = connector.run_shell_command(StringCommand(f"chown -R daemon:mail {home}"))
    assert done, output.stderr
    assert (os.fstat(folder).st_uid, home.stat().st_gid) == (1, 8)
    os.close(folder)
    subprocess.run(["rm", "-rf", home], check=True)


def test_a_tree_without_an_end_ends_in_time(home: Path) -> None:
    """An account may fill its folder with files."""
    for number in range(2000):
        (home / str(number)).touch()
    connector = ways.connector_of(ways.our_state(native=True))
    done, output = connector.run_shell_command(StringCommand(f"chown -R nobody {home}"), _timeout=0.000001)
    assert (done, "took longer than 1e-06 s" in output.stderr) == (False, True)


def test_hard_links_of_root_in_its_tree_can_be_given_away(open_folder: Path) -> None:
    """As a clone of a local git repository has them; nobody else could write there until then."""
    (open_folder / "tree/sub").mkdir(parents=True)
    (open_folder / "tree/one").touch()
    os.link(open_folder / "tree/one", open_folder / "tree/sub/two")
    connector = ways.connector_of(ways.our_state(native=True))
    for _ in range(2):
        assert connector.run_shell_command(StringCommand(f"chown -R nobody {open_folder}/tree"))[0]
    assert {path.stat().st_uid for path in (open_folder / "tree").rglob("*")} == {NOBODY}


def test_a_hard_link_in_a_tree_of_another_account_is_refused(home: Path, victim: Path) -> None:
    os.link(victim, home / "sub/conf")
    before = ways.tree(victim.parent)
    connector = ways.connector_of(ways.our_state(native=True))
    for command in ("chown -R nobody", "chmod -R 777"):
        done, output = connector.run_shell_command(StringCommand(f"{command} {home}"))
        assert not done
        assert f"{home}/sub/conf is refused: this file with 2 names of root" in output.stderr
    assert ways.tree(victim.parent) == before
