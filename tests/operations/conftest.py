"""What the tests of releases share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo import paths
from tests.lab.repository import Repository
from tests.support.releases import Shop
from tests.support.wheels import lock, uv, wheel


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other accounts can reach, as they can /srv; pytest's own is for root alone."""
    folder = Path(tempfile.mkdtemp(prefix="pyinfra-solo-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shop(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(paths, "RUN", open_folder / "run")
    monkeypatch.setenv("PATH", str(uv().parent), prepend=":")
    made = Shop(Repository(open_folder / "shop.git").make(), open_folder / "srv")
    made.root.mkdir()
    made.push("one")
    return made


@pytest.fixture
def with_wheels(shop: Shop, tmp_path: Path) -> Shop:
    """Its releases have an environment with the package alpha."""
    sha = wheel(shop.root / "wheels", "alpha")
    shop.push("one", **{"requirements.lock": lock(tmp_path / "lock", ("alpha", "1.0", sha)).read_text()})
    shop.options["requirements"] = "requirements.lock"
    return shop
