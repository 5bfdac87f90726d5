"""A plain file command gives away no file of root's, however it is written and whatever its arguments are."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import StringCommand

from pyinfra_solo.native import commands
from pyinfra_solo.native.pending_files import PendingFiles
from tests.support import both_ways as ways
from tests.support.apart import mount_over, run_apart

NOBODY = 65534


@pytest.fixture
def roots(open_folder: Path) -> Path:
    """A file of root's, to which `home/f` of the account nobody is a link, and `home/sub` to its folder."""
    (open_folder / "home").mkdir()
    (open_folder / "roots").mkdir()
    path = open_folder / "roots/conf"
    path.write_text("root's")
    path.chmod(0o600)
    (open_folder / "home/f").symlink_to(path)
    (open_folder / "home/sub").symlink_to(path.parent)
    for one in ("home", "home/f", "home/sub"):
        os.chown(open_folder / one, NOBODY, NOBODY, follow_symlinks=False)
    ways.age(open_folder / "roots")
    return path


SHELLS: list[tuple[str, dict[str, Any]]] = [
    ("chown nobody {home}/f", {"_success_exit_codes": [0, 1]}),
    ("chmod 666 {home}/f", {"_success_exit_codes": [1]}),
    ("chown nobody f", {"_chdir": "{home}"}),
    ("chmod 666 f", {"_chdir": "{home}"}),
    ("chmod 666 home/f", {"_chdir": "{home}/.."}),
    ("touch ./f", {"_chdir": "{home}"}),
    ("rm -f sub/conf", {"_chdir": "{home}"}),
    ("chown nobody conf", {"_chdir": "{home}/sub"}),
    ("chown nobody {home}/f", {"_sudo": True, "_sudo_user": "#0"}),
    ("chown nobody: {home}/f", {}),
    ("chown :nogroup {home}/f", {}),
    ("chown nobody:nogroup /dev/./shm/../..{home}/f", {}),
    ("chown root.nogroup {home}/f", {}),
    ("chown +65534 {home}/f", {}),
    ("chown --reference=/etc/passwd {home}/f", {}),
    ("chown --dereference nobody {home}/f", {}),
    ("chown -v nobody {home}/f", {}),
    ("chown no-such-account {home}/f", {}),
    ("chmod 0000666 {home}/f", {}),
    ("chmod --reference={home}/sub {home}/f", {}),
    ("chmod 666 {home}/x {home}/f", {}),
    ("chgrp -L -R nogroup {home}/sub/", {}),
    ("touch -d yesterday {home}/f", {}),
    ("touch -c {home}/f", {}),
    ("mkdir {home}/sub/new", {}),
    ("rm {home}/sub/conf", {}),
    ("ln -sf x {home}/sub", {}),
    ("ln -s -t {home}/sub x", {}),
    ("ln -s x y --target-directory={home}/sub", {}),
]


@pytest.mark.parametrize(("command", "arguments"), SHELLS)
@pytest.mark.parametrize("native", [True, False], ids=["native", "no-native"])
def test_a_command_in_a_folder_of_another_account_is_refused(
    command: str, arguments: dict[str, Any], native: bool, roots: Path
) -> None:
    home = roots.parents[1] / "home"
    if "_chdir" in arguments:
        arguments = {"_chdir": arguments["_chdir"].format(home=home)}
    before = ways.tree(roots.parent)
    connector = ways.connector_of(ways.our_state(native=native))
    done, output = connector.run_shell_command(StringCommand(command.format(home=home)), **arguments)
    assert ways.tree(roots.parent) == before
    assert (done, "is refused: " in output.stderr) == (False, True), output.stderr


@pytest.mark.parametrize(
    "command",
    [
        "mkdir {}/new",
        "rm {}/f",
        "rm -rf {}/sub/conf",
        "chmod 600 {}/f; true",
        "echo {}/f",
        "cp /etc/hostname {}/g",
    ],
)
def test_other_commands_stay_with_the_shell(command: str, roots: Path) -> None:
    """Those that follow no link in the last folder, rm -r, and all that is no plain file command."""
    connector = ways.connector_of(ways.our_state(native=True))
    command = command.format(roots.parents[1] / "home")
    assert not commands.run(command, PendingFiles(), "/")
    assert connector.run_shell_command(StringCommand(command))[0]


@pytest.mark.parametrize(
    ("owner", "ids"), [("daemon:", None), (":mail", (0, 8)), ("1:", "failed"), ("12", (12, 0))]
)
def test_an_owner_is_understood_as_chown_does(
    owner: str, ids: tuple[int, int] | str | None, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    connector = ways.connector_of(ways.our_state(native=True))
    done, _ = connector.run_shell_command(StringCommand(f"chown {owner} {tmp_path}/file"))
    about = (tmp_path / "file").stat()
    if ids == "failed":
        assert not done
    else:
        assert (about.st_uid, about.st_gid) == (ids or pwd.getpwnam("daemon")[2:4])


def chown_to_a_name_with_a_sign(path: str) -> list[int]:
    for name in ("passwd", "group"):
        own = Path(path, name)
        own.write_text(
            Path("/etc", name).read_text() + "svc@corp:x:7777:" + "7777::/:/bin/false\n" * (name == "passwd")
        )
        mount_over(f"/etc/{name}", own)
    (Path(path) / "file").touch()
    assert commands.run(f"chown svc@corp:svc@corp {path}/file", PendingFiles())
    about = os.stat(f"{path}/file")  # noqa: PTH116
    return [about.st_uid, about.st_gid]


def test_any_name_of_an_account_is_understood(tmp_path: Path) -> None:
    assert run_apart(chown_to_a_name_with_a_sign, tmp_path, own_mounts=True) == [7777, 7777]


@pytest.mark.parametrize(("codes", "well"), [([0], False), ([0, 1], True), ([1], True), ([2], False)])
def test_exit_codes_hold_for_a_command_that_fails(codes: list[int], well: bool, tmp_path: Path) -> None:
    connector = ways.connector_of(ways.our_state(native=True))
    command = StringCommand(f"chmod 600 {tmp_path}/absent")
    assert connector.run_shell_command(command, _success_exit_codes=codes)[0] is well
