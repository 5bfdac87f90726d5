"""A freshly installed Debian 12: apt, make, and nothing else.

    python -m tests.lab.clean make demo        # with a copy of this checkout
    python -m tests.lab.clean --no-cache make test

It has a root of its own, and shares this host's network, control groups, name server, certificates, and
the settings of pip, uv and apt.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import cgroup, host, roots
from tests.lab.cgroup import Cgroup
from tests.lab.image import ENVIRONMENT, digest, fresh_folder, locked
from tests.support import programs
from tests.support.cache import cache_folder
from tests.support.programs import LabError, Result
from tests.support.repository import Repository

HERE = Path(__file__).parents[2]
CHECKOUT = "/root/pyinfra-solo"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
HOST_BUNDLE = "/etc/host-certificates.crt"
"""Its copy of the host's certificates: BUNDLE itself belongs to its own package."""

SETTINGS = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf", "/etc/uv/uv.toml", "~/.config/uv/uv.toml")  # fmt: skip
VARIABLES = re.compile(r"(PIP|UV)_\w+|(https?|no|all)_proxy", re.IGNORECASE)
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")


def root() -> Path:
    """Return the root that each is a copy of: `mmdebstrap --variant=minbase`, and make. Built once."""
    sources = roots.debian_sources()
    key = f"clean-{digest(sources)}"
    made = cache_folder() / "roots" / key
    with locked(key):
        if not made.exists():
            building = fresh_folder(made)
            (building / "sources.list").write_text(sources)
            words = ["--quiet", "--mode=root", "--variant=minbase", "--include=make", "bookworm"]
            programs.run(["mmdebstrap", *words, building / "root", building / "sources.list"], timeout=900)
            (building / "root").rename(made)
            shutil.rmtree(building)
    return made


@dataclass
class Clean:
    """One such Debian, in `folder`, which must be on a real disk. Use as a context manager.

    cache: whether it shares this host's cache of roots and layers, or builds all of it anew.
    """

    folder: Path
    cache: bool = True
    _group: Cgroup = field(init=False)

    def __post_init__(self) -> None:
        self._group = Cgroup(self.folder.name)

    def __enter__(self) -> Clean:
        sweep(self.folder.parent)
        self._root.parent.mkdir(parents=True)
        programs.run(["cp", "-a", "--reflink=auto", root(), self._root], timeout=300)
        for file in Path("/etc/apt/apt.conf.d").glob("*"):
            if "Acquire::" in file.read_text(errors="replace"):
                shutil.copy2(file, self._root / "etc/apt/apt.conf.d")
        copied = Repository(self.folder / "copy.git").make()
        copied.copy_tree(HERE, "A copy of the working tree")
        inside = Path(f"{self._root}{CHECKOUT}")
        programs.run(["git", "clone", "--quiet", "--no-hardlinks", copied.path, inside])
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        shutil.rmtree(self.folder)

    @property
    def _root(self) -> Path:
        return self.folder / "root"

    def run(self, command: str, timeout: float, *, check: bool = True) -> Result:
        """Run a shell command in the checkout; stderr and stdout come together, as in a terminal.

        Raises LabError after `timeout` seconds, and with `check` when its exit status is not 0.
        """
        output = self.folder / "output"
        with output.open("wb") as out:
            code = self.start(command, out).wait_within(timeout)
        text = output.read_text(errors="replace")
        if code is None or (check and code != 0):
            how = f"not done after {timeout:.0f} s" if code is None else f"exit status {code}"
            raise LabError(f"{command}: {how}\n{text[-8000:]}")
        return Result(text, "", code)

    def start(self, command: str, out: object = None) -> Running:
        """Start a shell command in the checkout. out: a file, instead of this process's own stdout."""
        self._group.make()
        variables = {**ENVIRONMENT, **registry_variables()}
        words = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
        inside = shlex.join([*words, "sh", "-c", f"cd {CHECKOUT} && {command}"])
        script = "\n".join([f"{self._group.enter_script()}", *self._mounts(), inside])
        apart = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
        process = subprocess.Popen(
            apart, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT if out else None  # type: ignore[call-overload]
        )  # fmt: skip
        return Running(self, process)

    def _mounts(self) -> Iterator[str]:
        """pivot_root(8), not chroot: nspawn wants to change its root itself, which no chroot allows."""
        where = shlex.quote(str(self._root))
        yield f"mount --bind {where} {where}"
        for name in ("proc", "sys", "dev"):
            yield f"mount --rbind /{name} {where}/{name}"
        for outside, inside, mode in self._binds():
            target, source = shlex.quote(f"{self._root}{inside}"), shlex.quote(str(outside))
            make = "mkdir -p" if outside.is_dir() else "install -D -m 644 /dev/null"
            yield f"[ -e {target} ] || {make} {target}"
            yield f"mount --bind {source} {target}; mount -o remount,bind,{mode} {target}"
        yield f"cd {where}; pivot_root . mnt; umount -l /mnt; cd /"

    def _binds(self) -> Iterator[tuple[Path, str, str]]:
        if bundle().exists():
            yield bundle(), HOST_BUNDLE, "ro"
        for path in (Path("/etc/resolv.conf"), *registry_files()):
            yield path.resolve(), str(path), "ro"
        if self.cache:
            yield cache_folder(), "/var/cache/pyinfra-solo-lab", "rw"

    def end(self) -> None:
        """End all that runs in it, and the machines that a lab in it has left."""
        self._group.kill()
        for record in (self._root / "run/pyinfra-solo-lab").glob("*.json"):
            left = json.loads(record.read_text())
            cgroup.kill_all(f"{left['network']}.")
            if self.cache:
                shutil.rmtree(left["folder"], ignore_errors=True)
            record.unlink()
        self._group.remove()


def place() -> Path:
    """Return a folder for a Clean of this process."""
    return cache_folder() / "runs" / f"clean-{os.getpid()}"


def sweep(runs: Path) -> None:
    """Clean up after processes that were killed."""
    for folder in runs.glob("clean-*"):
        if not host.alive(int(folder.name.removeprefix("clean-"))):
            Clean(folder).end()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Running:
    """A command in a clean Debian."""

    clean: Clean
    process: subprocess.Popen[bytes]

    def wait_within(self, seconds: float) -> int | None:
        """Its exit status; None when it had to be ended."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.clean.end()
            self.process.wait()


def bundle() -> Path:
    """Return the certificate bundle of this process's environment, else the host's."""
    named = (os.environ.get(name, "") for name in CERTIFICATES)
    return Path(next(filter(os.path.isfile, named), BUNDLE))


def registry_variables() -> dict[str, str]:
    """Return this process's variables that say where packages come from."""
    variables = {key: value for key, value in os.environ.items() if VARIABLES.fullmatch(key)}
    names = CERTIFICATES if bundle().exists() else ()
    return {**variables, **dict.fromkeys(names, HOST_BUNDLE)}


def registry_files() -> list[Path]:
    """Return the settings files of pip and uv, and the folders of packages that they or variables name."""
    files = [path for name in SETTINGS if (path := Path(name).expanduser()).is_file()]
    texts = [path.read_text() for path in files] + list(registry_variables().values())
    named = {Path(name) for text in texts for name in re.findall(r"(?:^|[\s=,]|file://)(/[^\s,]+)", text)}
    folders = [path.parent if path.name == "simple" else path for path in sorted(named) if path.is_dir()]
    return [*files, *dict.fromkeys(folders)]


def main(words: list[str]) -> int:
    """Run the command. Return the exit status of what ran inside."""
    if reason := host.missing():
        sys.stderr.write(f"{reason}\n")
        return 1
    cache = words[:1] != ["--no-cache"]
    with Clean(place(), cache) as clean:
        began = time.monotonic()
        running = clean.start(shlex.join(words if cache else words[1:]))
        with contextlib.suppress(KeyboardInterrupt):
            code = running.wait_within(4 * 3600)
            sys.stderr.write(f"clean: exit status {code} after {time.monotonic() - began:.0f} s\n")
            return 1 if code is None else code
    return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
