"""bootstrap/install.sh: what it refuses before it does anything, and what it installs for the units."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.machine import ENGINE, REPOSITORY

INSTALL = REPOSITORY / "bootstrap/install.sh"
UNITS = ENGINE / "pyinfra_solo/units"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with the programs that reading a command line needs, and none that could write.

    So a command line that is not refused cannot change the machine that runs the tests.
    """
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("dirname", "id", "sed"):
        (folder / name).symlink_to(Path("/usr/bin") / name)
    return folder


def bake(tools: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run install.sh with these words and no program that could write."""
    return subprocess.run(
        ["/usr/bin/dash", INSTALL, *words], env={"PATH": str(tools)}, capture_output=True, text=True, check=False,
        timeout=10,
    )  # fmt: skip


def test_install_sh_is_posix_shell_and_its_help_has_every_option(tools: Path) -> None:
    subprocess.run(["dash", "-n", INSTALL], check=True)
    done = bake(tools, "--help")

    assert done.returncode == 0
    options = set(re.findall(r"^        (--[a-z-]+)\)", INSTALL.read_text(), re.MULTILINE))
    assert options == {"--wheels", "--config", "--no-units", "--now"}
    assert all(option in done.stdout for option in options)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--wheel", "x"], "unknown option --wheel"),
        (["--config"], "--config needs a value"),
        (["--config", "/not there"], "there is no /not there"),
        (["--wheels", "/not there"], "there is no folder /not there"),
    ],
)
def test_install_sh_refuses_a_wrong_command_line(tools: Path, words: list[str], error: str) -> None:
    done = bake(tools, *words)

    assert done.returncode == 64
    assert error in done.stderr


def test_install_sh_installs_every_command_of_the_units() -> None:
    installed = re.search(r"for name in (pyinfra-solo[^;]*); do", INSTALL.read_text())
    assert installed
    started = {
        match for unit in UNITS.iterdir() if unit.is_file()
        for match in re.findall(r"/opt/pyinfra-solo/bin/([a-z-]+)", unit.read_text())
    }  # fmt: skip
    assert started <= set(installed[1].split())
    assert all((UNITS / name).exists() for name in installed[1].split())
