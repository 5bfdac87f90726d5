"""Wheels small enough to write by hand, and lock files that name them: what tests of runtimes share."""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

ZERO = "0" * 64


def uv() -> Path:
    """The uv of the development environment, else the one on PATH."""
    ours = Path(sys.prefix) / "uv/bin/uv"
    found = str(ours) if ours.exists() else shutil.which("uv")
    assert found, "uv is on PATH: tests/prepare.sh installs it"
    return Path(found)


def wheel(folder: Path, name: str, version: str = "1.0", body: str = "") -> str:
    """A wheel with the module `name` and a command of that name, which prints the version: its hash."""
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
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lock(path: Path, *pins: tuple[str, str, str]) -> Path:
    """A lock file at `path` of (name, version, sha256)."""
    path.write_text(
        "".join(f"{name}=={version} \\\n    --hash=sha256:{sha}\n" for name, version, sha in pins)
    )
    return path
