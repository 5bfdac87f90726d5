"""Images: stacks of read-only folders that machines start from, each built once and cached.

An image is [top layer, ..., base root]. A layer is an overlay's upper folder; it is built under a
temporary name and renamed, so a build that was killed never counts as one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import host
from tests.support import programs
from tests.support.cache import cache_folder

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass(frozen=True)
class Image:
    """A machine's read-only root: `layers`, the top one first, and the `key` of its content."""

    key: str
    layers: tuple[Path, ...]

    @property
    def lowerdir(self) -> str:
        """The layers as overlayfs wants them."""
        return ":".join(str(layer) for layer in self.layers)


@dataclass(frozen=True)
class Chroot:
    """A root that is being changed: commands run inside it see the host's network.

    `binds` are host path -> path inside, read-only unless in `writable`.
    """

    lowerdir: str
    upper: Path
    work: Path
    binds: dict[Path, str] = field(default_factory=dict)
    writable: dict[Path, str] = field(default_factory=dict)

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 300,
        check: bool = True,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
    ) -> programs.Result:
        """Run a command inside; the mounts live and die with it. Raises LabError as programs.run."""
        argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
        variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, **(env or {})}.items()]
        merged = self.work.parent / "merged"
        merged.mkdir(exist_ok=True)
        script = "\n".join(self._mounts(merged))
        inside = shlex.join(["chroot", str(merged), "env", "-i", *variables, *argv])
        # PID 1 stays outside the root, or packages take it for a machine that runs: sysvinit-core
        # then waits 46 s for its init, and replaces /dev/initctl.
        # As a slave it lets go of a machine's disk when the host unmounts that.
        apart = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child"]
        return programs.run(
            [*apart, "sh", "-ec", f"{script}\n{inside}\nexit 0"],
            timeout=timeout,
            check=check,
            stdin=stdin,
        )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside, with its folders."""
        self.run(write_script(path, mode), stdin=text.encode())

    def _mounts(self, merged: Path) -> Iterator[str]:
        options = f"lowerdir={self.lowerdir},upperdir={self.upper},workdir={self.work}"
        root = shlex.quote(str(merged))
        yield f"mount -t overlay overlay -o {shlex.quote(options)} {root}"
        yield f"mount -t proc proc {root}/proc"
        yield f"mount --rbind /sys {root}/sys"
        yield f"mount -t tmpfs -o mode=755 tmpfs {root}/dev"
        for device in ("null", "zero", "full", "random", "urandom", "tty"):
            yield f": > {root}/dev/{device}; mount --bind /dev/{device} {root}/dev/{device}"
        yield f"ln -s /proc/self/fd {root}/dev/fd; mkdir -m 1777 {root}/dev/shm"  # noqa: S108 its own
        yield f"mount -t tmpfs tmpfs {root}/run"
        for name in ("resolv.conf", "ssl/certs/ca-certificates.crt"):
            if Path("/etc", name).exists():
                yield f"[ ! -e {root}/etc/{name} ] || mount --bind /etc/{name} {root}/etc/{name}"
        for mode, binds in (("ro", self.binds), ("rw", self.writable)):
            for outside, inside in binds.items():
                target = shlex.quote(f"{merged}{inside}")
                if outside.is_dir():
                    yield f"mkdir -p {target}"
                else:
                    yield f"mkdir -p $(dirname {target}); [ -e {target} ] || : > {target}"
                yield f"mount --bind {shlex.quote(str(outside))} {target}"
                yield f"mount -o remount,bind,{mode} {target}"


def write_script(path: str, mode: int) -> str:
    """Return a shell line that writes its standard input to `path`, whole or not at all."""
    name = shlex.quote(path)
    return (
        f'mkdir -p "$(dirname {name})" && cat > {name}.lab-new'
        f" && chmod {mode:o} {name}.lab-new && mv {name}.lab-new {name}"
    )


def digest(*parts: str) -> str:
    """Return 16 hexadecimal digits that change when any part does."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def make_image(
    base: Image,
    recipe: Callable[[Chroot], None],
    key: str,
    *,
    binds: dict[Path, str] | None = None,
    writable: dict[Path, str] | None = None,
) -> Image:
    """Return a layer over `base` in which `recipe` ran; built when no layer of that `key` is cached.

    `key` names the layer and must hold whatever the recipe depends on, for example
    `"engine-" + digest(version, lock_file_text)`. Raises what the recipe raises.
    """
    full = f"{key}-{digest(base.key, key)}"
    layer = cache_folder() / "layers" / full
    with locked(full):
        if not layer.exists():
            building = fresh_folder(layer)
            chroot = Chroot(base.lowerdir, building / "upper", building / "work", binds or {}, writable or {})
            chroot.upper.mkdir()
            chroot.work.mkdir()
            recipe(chroot)
            (building / "upper").rename(layer)
            shutil.rmtree(building)
    return Image(full, (layer, *base.layers))


def fresh_folder(final: Path) -> Path:
    """Make an empty folder beside `final` to build it in; remove what a killed build left there."""
    building = final.parent / f".{final.name}.building"
    host.unmount_under(building)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    return building


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock, so that one process at a time builds `name`."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
