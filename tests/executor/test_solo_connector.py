"""Our connector under pyinfra's own command: @solo by its entry point, and @local in pyinfra_command."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pyinfra.api import Host
from pyinfra.context import ctx_host, ctx_state
from pyinfra.facts.files import File

from pyinfra_solo import __version__
from pyinfra_solo.executor.host import local_state
from pyinfra_solo.executor.solo_connector import SoloConnector, take_over
from tests.support.files import stamps
from tests.support.machine import REPOSITORY

DEPLOY = """
from io import StringIO
from pyinfra import host
from pyinfra.facts.files import File
from pyinfra.operations import files, server

files.directory(name="a folder", path="{folder}/made", mode="750")
put = files.put(name="a file", src=StringIO("text"), dest="{folder}/made/file", mode="640")
files.link(name="a link", path="{folder}/made/link", target="file")
server.shell(name="a command", commands=["echo said; echo $PPID > {folder}/shell"], _if=put.did_change)
"""


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH that registers what the wheel registers, as an installer writes it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site" / f"pyinfra_solo-{__version__}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pyinfra-solo\nVersion: {__version__}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return folder.parent


def pyinfra(site: Path, folder: Path, *words: str, deploy: str = DEPLOY) -> subprocess.CompletedProcess[str]:
    (folder / "deploy.py").write_text(deploy.format(folder=folder))
    paths = os.pathsep.join([str(site), str(REPOSITORY / "bootstrap")])
    return subprocess.run(
        [str(Path(sys.executable).parent / "pyinfra"), *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_pyinfra_finds_our_connector_and_converges_with_it(registered: Path, tmp_path: Path) -> None:
    done = pyinfra(registered, tmp_path, "-y", "@solo", "deploy.py")
    assert done.returncode == 0, done.stderr
    made = tmp_path / "made"
    assert (made / "file").read_text() == "text"
    assert (made.stat().st_mode & 0o777, (made / "file").stat().st_mode & 0o777) == (0o750, 0o640)
    assert (made / "link").readlink() == Path("file")
    assert (tmp_path / "shell").exists()


def test_a_second_time_changes_nothing(registered: Path, tmp_path: Path) -> None:
    pyinfra(registered, tmp_path, "-y", "@solo", "deploy.py")
    before = stamps(tmp_path / "made")
    again = pyinfra(registered, tmp_path, "-y", "@solo", "deploy.py")
    assert again.returncode == 0
    assert again.stderr.count("No changes") == 4
    assert stamps(tmp_path / "made") == before


def test_a_command_that_takes_too_long_ends_under_pyinfras_own_command_too(
    registered: Path, tmp_path: Path
) -> None:
    """pyinfra's own connector gives up, and leaves it running."""
    deploy = """
from pyinfra.operations import server
server.shell(name="too long", commands=["echo $$ > {folder}/pid; sleep 120"], _timeout=1)
"""
    done = pyinfra(registered, tmp_path, "-y", "@solo", "deploy.py", deploy=deploy)
    assert done.returncode == 1
    assert "took longer than 1 s and was ended" in done.stderr
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_what_pyinfra_is_asked_to_show_is_shown(registered: Path, tmp_path: Path) -> None:
    done = pyinfra(registered, tmp_path, "-y", "-vvv", "@solo", "deploy.py")
    assert done.returncode == 0
    assert ">>> mkdir -p" in done.stderr
    assert "said" in done.stderr


def test_native_off_holds_for_a_connector_of_ours_too(tmp_path: Path) -> None:
    state = local_state(tmp_path, {}, Host)
    host = next(iter(state.inventory))
    host.connector = SoloConnector(state, host)
    shells: list[str] = []
    for native in (False, True):
        take_over(host, native=native, timeout=60)
        assert isinstance(host.connector, SoloConnector)
        host.connector.after_child = lambda name, _seconds: shells.append(name)
        with ctx_state.use(state), ctx_host.use(host):
            assert host.get_fact(File, path="/etc/passwd")
        assert len(shells) == 1, "by a shell when it is off, and only then"
