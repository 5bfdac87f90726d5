"""Wheels small enough to write by hand, and runtimes made of them: what the tests of runtimes share."""

import hashlib
import io
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pyinfra_solo.stations.prepare import Runtime, prepare
from tests.support.programs import run

ZERO = "0" * 64
PYTHON = "/usr/bin/python3"
NOBODY = "http://127.0.0.1:9/simple"
"""Where no index is: the port is discard's."""


def uv() -> Path:
    """The uv of the development environment, else the one on PATH."""
    ours = Path(sys.prefix) / "uv/bin/uv"
    found = str(ours) if ours.exists() else shutil.which("uv")
    assert found, "uv is on PATH: tests/prepare.sh installs it"
    return Path(found)


def wheel(
    folder: Path, name: str, version: str = "1.0", body: str = "", files: Mapping[str, str] | None = None
) -> str:
    """A wheel with the module `name` and a command of that name, which prints the version: its hash.

    files: more of them, by their paths in site-packages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    module = f"def main() -> None:\n    print({version!r})\n{body}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", module)
        archive.writestr(f"{about}/METADATA", metadata)
        archive.writestr(f"{about}/WHEEL", tags)
        archive.writestr(f"{about}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        archive.writestr(f"{about}/RECORD", "")
        for more, text in (files or {}).items():
            archive.writestr(more, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


_BACKEND = """\
import os, subprocess, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    {code}
    about = "{name}-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(folder, "{name}-1.0-py3-none-any.whl"), "w") as archive:
        archive.writestr("{name}.py", "")
        archive.writestr(about + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        archive.writestr(about + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(about + "/RECORD", "")
    return "{name}-1.0-py3-none-any.whl"
"""


def source_package(folder: Path, name: str, code: str) -> str:
    """A package without a wheel, whose own build backend runs `code` when it is built: its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0.tar.gz"
    files = {
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        f"[project]\nname = '{name}'\nversion = '1.0'\n",
        "backend.py": _BACKEND.format(name=name, code=code),
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in files.items():
            about = tarfile.TarInfo(f"{name}-1.0/{inner}")
            about.size = len(text.encode())
            archive.addfile(about, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lock(path: Path, *pins: tuple[str, str, str]) -> Path:
    """A lock file at `path` of (name, version, sha256)."""
    path.write_text(
        "".join(f"{name}=={version} \\\n    --hash=sha256:{sha}\n" for name, version, sha in pins)
    )
    return path


class House:
    """A folder of wheels, a lock file, and where runtimes are built from them."""

    def __init__(self, folder: Path) -> None:
        self.wheels = folder / "wheels"
        self.lock = folder / "requirements.lock"
        self.into = folder / "state/runtimes"
        self.lines: list[str] = []
        self.command: list[str | Path] = [
            PYTHON, "-m", "pyinfra_solo.stations.prepare", "--lock", self.lock, "--into", self.into,
        ]  # fmt: skip
        """The start of the command line that prepares a runtime."""
        alpha, beta = wheel(self.wheels, "alpha"), wheel(self.wheels, "beta", "2.0")
        self.ask(("alpha", "1.0", alpha), ("beta", "2.0", beta))

    def ask(self, *pins: tuple[str, str, str]) -> None:
        """The lock file has these pins."""
        lock(self.lock, *pins)

    def prepare(
        self, *homes: Path, tool: Path | None = None, index: str = NOBODY, timeout: float = 60
    ) -> Runtime:
        return prepare(
            self.lock, homes=[*homes, self.into], into=self.into, uv=tool or uv(), wheels=[self.wheels],
            index=index, python=PYTHON, timeout=timeout, log=self.lines.append,
        )  # fmt: skip

    def names(self) -> set[str]:
        """What is in the folder of runtimes."""
        return {path.name for path in self.into.iterdir() if path.name != ".lock"}


def prints(runtime: Runtime, code: str) -> str:
    """What Python code prints in a runtime."""
    return run([runtime.python, "-I", "-c", code]).stdout.strip()


SLOW = """\
#!/bin/sh
case $1 in venv) exec {uv} "$@" ;; esac
sleep 300 & echo $! >{folder}/child
wait
"""


def slow_uv(folder: Path) -> Path:
    """A uv whose installations never end, and have a child."""
    path = folder / "slow-uv"
    path.write_text(SLOW.format(uv=uv(), folder=folder))
    path.chmod(0o755)
    return path
