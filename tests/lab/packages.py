"""Package servers inside the lab: an apt repository, and a folder of wheels for pip.

Both are filled on the host once, kept in the cache, and served by plain HTTP.
"""

from __future__ import annotations

import hashlib
import html
import shutil
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import roots
from tests.lab.image import Chroot, Image, digest, fresh_folder, locked
from tests.lab.network import SERVICES, Network
from tests.support import programs
from tests.support.cache import cache_folder
from tests.support.web import Answer, Asked, Faults, WebServer

APT, PYPI = "apt.lab", "pypi.lab"


def debs(packages: list[str], root: Image) -> Path:
    """Return a folder with `packages` and those of their dependencies that `root` lacks; downloaded once."""
    names = " ".join(sorted(packages))
    folder = cache_folder() / "debs" / digest(names, root.key)
    with locked("apt"):
        if not folder.exists():
            building = fresh_folder(folder)
            out = building / "out"
            for sub in (building / "upper", building / "work", out / "partial"):
                sub.mkdir(parents=True)
            apt = roots.apt_folders()
            binds = {apt / "sources.list": "/etc/apt/sources.list.d/lab-build.list"}
            writable = {apt / "lists": "/var/lib/apt/lists", out: "/var/cache/apt/archives"}
            chroot = Chroot(root.lowerdir, building / "upper", building / "work", binds, writable)
            get = f"apt-get -q install -y --no-install-recommends --download-only {names}"
            chroot.run(f"{get} || {{ apt-get -q update && {get}; }}", timeout=600)
            (out / "Packages").write_text(_index(out))
            shutil.rmtree(out / "partial")
            (out / "lock").unlink(missing_ok=True)
            out.rename(folder)
            shutil.rmtree(building)
    return folder


def _index(folder: Path) -> str:
    """Return the Packages file of a flat repository without sources (Debian wiki, RepositoryFormat)."""
    stanzas = []
    for deb in sorted(folder.glob("*.deb")):
        control = programs.run(["dpkg-deb", "--field", deb]).stdout.strip()
        data = deb.read_bytes()
        sha = hashlib.sha256(data).hexdigest()
        stanzas.append(f"{control}\nFilename: ./{deb.name}\nSize: {len(data)}\nSHA256: {sha}\n")
    return "\n".join(stanzas)


def wheels(requirements: str, *, python: str = "3.11") -> Path:
    """Return a folder with the wheels that a requirements file's text names; downloaded once.

    `python` is the version that will install them. Raises LabError when one has no wheel.
    """
    folder = cache_folder() / "wheels" / digest(requirements, python)
    with locked(f"wheels-{folder.name}"):
        if not folder.exists():
            building = fresh_folder(folder)
            asked = building / "requirements.txt"
            asked.write_text(requirements)
            out = building / "out"
            options = ["--only-binary=:all:", f"--python-version={python}", "--quiet"]
            words = ["download", *options, "--dest", str(out), "--requirement", str(asked)]
            programs.run([*_pip(), *words], timeout=600)
            out.rename(folder)
            shutil.rmtree(building)
    return folder


def _pip() -> list[str]:
    beside = f"{sys.prefix}/uv/bin/python"  # which tests/prepare.sh made, with pip in it
    pythons = [sys.executable, beside, "python3"]
    candidates = [[python, "-m", "pip"] for python in pythons]
    for candidate in candidates:
        if shutil.which(candidate[0]) and programs.run([*candidate, "--version"], check=False).ok:
            return candidate
    raise programs.LabError("wheels are downloaded by pip: run tests/prepare.sh")


@dataclass
class Packages:
    """apt.lab and pypi.lab. Nothing is served until `add_debs`, or a folder in `wheels`."""

    network: Network
    debs: dict[str, Path] = field(default_factory=dict)
    wheels: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._apt = WebServer(self.network, SERVICES[APT], files(self.debs))
        self._pypi = WebServer(self.network, SERVICES[PYPI], files(self.wheels))

    @property
    def apt_faults(self) -> Faults:
        """Faults of apt.lab."""
        return self._apt.faults

    @property
    def pypi_faults(self) -> Faults:
        """Faults of pypi.lab."""
        return self._pypi.faults

    def start(self) -> None:
        """Serve both."""
        self._apt.start()
        self._pypi.start()

    def stop(self) -> None:
        """Refuse connections until `start`."""
        self._apt.stop()
        self._pypi.stop()

    def add_debs(self, packages: list[str], root: Image) -> str:
        """Serve packages for machines made from `root`. Return the line for their sources.list."""
        folder = debs(packages, root)
        self.debs[folder.name] = folder
        return f"deb [trusted=yes] http://{APT}/{folder.name}/ ./\n"


def files(folders: dict[str, Path]) -> Callable[[Asked], Answer]:
    """Return a handler that serves the files of named folders, and an index of links for each folder."""

    def answer(asked: Asked) -> Answer:
        path = urllib.parse.unquote(urllib.parse.urlsplit(asked.path).path)
        name, _, file = path.strip("/").partition("/")
        folder = folders.get(name)
        if folder is None or asked.method not in ("GET", "HEAD"):
            return Answer(404)
        if not file or file == ".":
            links = (f'<a href="{quoted}">{quoted}</a>' for quoted in _names(folder))
            return Answer(200, "\n".join(links).encode(), {"Content-Type": "text/html"})
        found = {one.name: one for one in folder.iterdir()}.get(file.removeprefix("./"))
        return Answer(404) if found is None else Answer(200, found.read_bytes())

    return answer


def _names(folder: Path) -> list[str]:
    return sorted(html.escape(urllib.parse.quote(one.name)) for one in folder.iterdir())
