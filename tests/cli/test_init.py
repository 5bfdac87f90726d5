"""`pyinfra-solo init` writes an ops repo that works, from a clone and from a wheel alike."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pyinfra_solo.cli import init as skeleton
from pyinfra_solo.errors import UsageError
from tests.support.files import listing
from tests.support.machine import REPOSITORY
from tests.support.wheels import uv

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
WRITTEN = {"README.md", ".gitignore"}
"""What init writes itself; everything else is a file of this repository."""


def files(folder: Path) -> dict[str, bytes]:
    """Every file's content, bytecode apart."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and ".pytest_cache" not in path.parts
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new ops repo."""
    folder = tmp_path_factory.mktemp("ops") / "new/ops"
    skeleton.init(folder)
    return folder


def test_every_file_is_one_of_this_repository_and_none_is_missing(repository: Path) -> None:
    written = files(repository)
    for name in set(written) - WRITTEN:
        assert written[name] == (REPOSITORY / name).read_bytes(), name
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "--", skeleton.ENGINE, *skeleton.SHIPPED],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert set(written) - WRITTEN == {name for name in listed if (REPOSITORY / name).is_file()}


def test_what_is_written_is_told_and_programs_can_be_run(tmp_path: Path) -> None:
    written = skeleton.init(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == set(files(tmp_path))
    executable = {path.name for path in written if path.stat().st_mode & 0o111}
    assert {"install.sh", "pyinfra-solo-fence", "pyinfra-solo-retry"} <= executable
    assert "__init__.py" not in executable


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops/mine").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(UsageError, match=r"is not empty: it holds mine\. Name a folder"):
        skeleton.init(tmp_path / "ops")
    with pytest.raises(UsageError, match="is not a folder"):
        skeleton.init(tmp_path / "ops/mine")
    assert listing(tmp_path) == before


def test_a_fresh_git_repository_counts_as_empty(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    skeleton.init(tmp_path)
    assert (tmp_path / "deploy.py").exists()


def test_the_new_repository_s_own_tests_pass(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=repository, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_an_engine_that_travels_with_a_repository_can_start_another(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pyinfra_solo", "init", tmp_path / "next"],
        env={"PYTHONPATH": str(repository / "bootstrap"), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert files(tmp_path / "next") == files(repository)


def test_the_wheel_carries_what_the_skeleton_names() -> None:
    built = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    carried = built["targets"]["wheel"]["force-include"]
    assert carried == {name: f"pyinfra_solo/skeleton/{name}" for name in skeleton.SHIPPED}


def test_a_repository_from_the_wheel_is_the_one_from_the_clone(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=REPOSITORY, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    wheel = next((tmp_path / "dist").glob("*.whl"))
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = ["pip", "install", "--quiet", "--no-deps", "--offline", "--python"]
    subprocess.run([uv(), *install, python, wheel], check=True)
    packages = tmp_path / "venv/lib" / VERSION / "site-packages"
    assert not list((packages / "pyinfra_solo").rglob("skeleton/**/*.pyc"))
    # What the engine needs is already here; the engine itself must be the wheel's.
    (packages / "here.pth").write_text(f"{Path(sys.prefix) / 'lib' / VERSION / 'site-packages'}\n")
    done = subprocess.run(
        [tmp_path / "venv/bin/pyinfra-solo", "init", tmp_path / "ops"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert files(tmp_path / "ops") == files(repository)
    assert len(done.stdout.splitlines()) == len(files(repository))
    modes = {name: (tmp_path / "ops" / name).stat().st_mode for name in files(repository)}
    assert modes == {name: (repository / name).stat().st_mode for name in modes}
