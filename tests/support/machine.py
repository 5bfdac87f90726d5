"""A machine below a folder, and ops repos small enough to read: what the tests of the line share.

`Machine` is the command `pyinfra-solo` with every path of its own below a folder; `here` puts the
paths of this process there too. A tree's engine is this working tree's, by a link.
"""

from __future__ import annotations

import compileall
import io
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyinfra

from pyinfra_solo import paths
from pyinfra_solo.run.console import PlainConsole
from pyinfra_solo.run.run import Run
from pyinfra_solo.stations.converge import Changes, converge, engine_of
from pyinfra_solo.stations.prepare import runtime_key
from pyinfra_solo.stations.resolve import Candidate, Choice
from pyinfra_solo.system import durable
from pyinfra_solo.system.deadline import Deadline

if TYPE_CHECKING:
    import pytest

REPOSITORY = Path(__file__).parents[2]
ENGINE = REPOSITORY / "bootstrap"
DEPLOY = (REPOSITORY / "deploy.py").read_text()

# The children are told to write no bytecode, so without this each compiles all of pyinfra anew.
for _folder in (ENGINE / "pyinfra_solo", Path(pyinfra.__file__).parent):
    compileall.compile_dir(_folder, quiet=2)

_ROLE = """\
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pyinfra import host
from pyinfra.operations import files, python, server

from pyinfra_solo import checks
from pyinfra_solo.ops_repo.values import Secret
from pyinfra_solo.role import role


@dataclass(frozen=True, kw_only=True)
class Site:
    text: str = "hello"
    token: Secret = ""
    target: str = {target!r}


def healthy(data):
    return [{healthy}]


@role(data=Site, healthy=healthy)
def site(data):
{operations}
"""


def site(operations: str, target: Path, healthy: str = "") -> str:
    """The text of a role `site`, whose operations may use `data.text`, `data.token`, `data.target`."""
    body = textwrap.indent(textwrap.dedent(operations).strip() or "pass", "    ")
    return _ROLE.format(operations=body, target=str(target), healthy=healthy)


def ops(operations: str, target: Path, healthy: str = "", **more: str) -> dict[str, str]:
    """The files of an ops repo with the one role `site` and the stages staging and production.

    more: files, `__` standing for `/` and a last `_` for `.`, which no keyword can have.
    """
    return {
        "deploy.py": DEPLOY,
        "roles/__init__.py": "",
        "roles/site/__init__.py": site(operations, target, healthy),
        "inventories/staging.py": "hosts = []\n",
        "inventories/production.py": "hosts = []\n",
        **more,
    }


def write(root: Path, files: Mapping[str, str]) -> Path:
    """A working tree with `files`, and this working tree's engine."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not (root / "bootstrap").exists():
        (root / "bootstrap").symlink_to(ENGINE)
    return root


def put_below(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """From now on the paths of this process, and of what it starts, are below `folder`."""
    patch.setenv("PYINFRA_SOLO_ROOT", str(folder))
    for name in ("CONFIG", "BAKED", "STATE", "RUN", "GATE", "APPS"):
        patch.setattr(paths, name, folder / getattr(paths, name).relative_to(paths.ROOT))
    patch.setattr(paths, "ROOT", folder)
    (paths.STATE / "reports").mkdir(parents=True, exist_ok=True)


def new_run(seconds: float = 60, heard: io.StringIO | None = None, *, keep_report: bool = True) -> Run:
    """A run that says what it says into `heard`; its report is below the folder of `put_below`."""
    return Run("test", Deadline.after(seconds), PlainConsole(heard or io.StringIO()), keep_report=keep_report)


def converged(root: Path, *, run: Run | None = None, **options: Any) -> Changes:
    """The station converge on a working tree: role `site`, stage `staging`."""
    run = run or new_run()
    with run.station("converge"):
        return converge(
            root,
            engine_of(root, Path(sys.executable)),
            Choice(role=Candidate(name="site", source="the test"), stage=Candidate(name="staging", source="the test")),
            options.pop("flags", {}),
            run,
            operation_seconds=options.pop("operation_seconds", 30.0),
            **options,
        )  # fmt: skip


def lives(pid: int) -> bool:
    """It is there and not a zombie (proc(5), /proc/PID/stat)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def listing(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All that a folder holds: for each path its kind and mode, owner, and content or target.

    Equal listings are equal trees; inode numbers and times are left out.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content: Any = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (oct(about.st_mode), about.st_uid, about.st_gid, content)
    return found


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode number and mtime of all that a folder holds: equal ones have not been touched."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def put_runtime(machine: Machine, lock: str) -> Path:
    """A runtime for a lock file, in the machine's image: this venv's packages, and this engine, which
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


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit status."""

    code: int
    out: str
    err: str

    def must(self, code: int) -> Said:
        """Itself, when it ended as it should."""
        assert self.code == code, f"exit status {self.code}\n{self.out}\n{self.err}"
        return self


@dataclass
class Machine:
    """A machine whose folders are below `root`; not on EC2, of stage staging and role site."""

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
    def is_in(self) -> bool:
        """The gate is open."""
        return self.ping.exists()

    def configure(self, **tables: str) -> None:
        """Write the settings; each table's lines are TOML."""
        tables = {"machine": 'ec2 = "no"\nrole = "site"\nstage = "staging"', **tables}
        self.config.write_text("\n".join(f"[{name}]\n{lines}\n" for name, lines in tables.items()))

    def variables(self) -> dict[str, str]:
        """The environment of its commands."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYINFRA"))}
        return {
            **clean,
            "PYINFRA_SOLO_ROOT": str(self.root),
            "PYTHONPATH": str(ENGINE),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environment,
        }

    def command(self, argv: list[str], cwd: Path | None = None, **options: Any) -> Said:
        done = subprocess.run(
            argv, cwd=cwd or self.root, env=self.variables(), capture_output=True, text=True, check=False,
            timeout=options.pop("timeout", 60), stdin=subprocess.DEVNULL, **options,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def solo(self, *words: str, **options: Any) -> Said:
        """`pyinfra-solo WORDS`."""
        return self.command([sys.executable, "-m", "pyinfra_solo", *words], **options)

    def pyinfra(self, tree: Path, *words: str, **options: Any) -> Said:
        """`pyinfra @local deploy.py WORDS`, in a working tree."""
        pyinfra = Path(sys.executable).with_name("pyinfra")
        return self.command([str(pyinfra), "-y", "@local", "deploy.py", *words], cwd=tree, **options)
