"""A machine below a folder: the command `pyinfra-solo` with all its paths there, and this process's paths too."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyinfra

from pyinfra_solo import paths
from pyinfra_solo.stations.prepare import runtime_key
from pyinfra_solo.system import durable
from tests.support.programs import Result

if TYPE_CHECKING:
    import pytest

REPOSITORY = Path(__file__).parents[2]
ENGINE = REPOSITORY / "bootstrap"

# Tests start children without bytecode files: without this each would compile all of pyinfra.
for _folder in (ENGINE / "pyinfra_solo", Path(pyinfra.__file__).parent):
    compileall.compile_dir(_folder, quiet=2)


def use_root(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the paths of this process, and of what it starts, below `folder`."""
    patch.setenv("PYINFRA_SOLO_ROOT", str(folder))
    for name in ("CONFIG", "BAKED", "STATE", "RUN", "GATE", "APPS"):
        patch.setattr(paths, name, folder / getattr(paths, name).relative_to(paths.ROOT))
    patch.setattr(paths, "ROOT", folder)
    (paths.STATE / "reports").mkdir(parents=True, exist_ok=True)


def install_runtime(machine: LocalMachine, lock: str) -> Path:
    """Install a runtime for a lock file in the machine's image: this venv's packages, and this engine, which
    a lock file may name instead of the checkout's own."""
    python = "/usr/bin/python3"
    runtime = machine.root / "opt/pyinfra-solo/runtimes" / runtime_key(lock.encode(), python)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = runtime / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "here.pth").write_text(f"{Path(sys.prefix) / 'lib' / version / 'site-packages'}\n")
    (packages / "pyinfra_solo").symlink_to(ENGINE / "pyinfra_solo")
    (runtime / "bin").mkdir()
    (runtime / "bin/python").symlink_to(python)
    (runtime / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    durable.complete(runtime)
    return runtime


@dataclass
class LocalMachine:
    """A machine whose folders are below `root`: not on EC2, stage `staging`, role `site`."""

    root: Path
    settings: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config.parent.mkdir(parents=True)
        self.configure()

    @property
    def config(self) -> Path:
        return self.root / "etc/pyinfra-solo/config.toml"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/pyinfra-solo"

    @property
    def run_folder(self) -> Path:
        return self.root / "run/pyinfra-solo"

    @property
    def ping(self) -> Path:
        return self.run_folder / "gate/ping.html"

    @property
    def in_service(self) -> bool:
        """The gate is open."""
        return self.ping.exists()

    def configure(self, **tables: str) -> None:
        """Write the settings; each table's lines are TOML."""
        tables = {"machine": 'ec2 = "no"\nrole = "site"\nstage = "staging"', **tables}
        self.config.write_text("\n".join(f"[{name}]\n{lines}\n" for name, lines in tables.items()))

    def variables(self) -> dict[str, str]:
        """Return the environment of its commands."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYINFRA"))}
        ours = {"PYINFRA_SOLO_ROOT": str(self.root), "PYTHONPATH": str(ENGINE)}
        return {**clean, **ours, "PYTHONDONTWRITEBYTECODE": "1", **self.environment}

    def command(self, argv: list[str], cwd: Path | None = None, **options: Any) -> Result:
        """Run a program with the environment of the machine."""
        done = subprocess.run(
            argv, cwd=cwd or self.root, env=self.variables(), capture_output=True, text=True, check=False,
            timeout=options.pop("timeout", 60), stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip
        return Result(done.stdout, done.stderr, done.returncode)

    def solo(self, *words: str, **options: Any) -> Result:
        """Run `pyinfra-solo WORDS`."""
        return self.command([sys.executable, "-m", "pyinfra_solo", *words], **options)

    def pyinfra(self, tree: Path, *words: str, **options: Any) -> Result:
        """Run `pyinfra @local deploy.py WORDS` in a working tree."""
        pyinfra = Path(sys.executable).with_name("pyinfra")
        return self.command([str(pyinfra), "-y", "@local", "deploy.py", *words], cwd=tree, **options)
