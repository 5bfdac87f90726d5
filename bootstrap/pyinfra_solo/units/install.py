"""Install the boot units for the init system that runs this machine."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.errors import SoloError, UsageError
from pyinfra_solo.system import durable

_WEB_SERVERS = ("nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy")
_DROP_IN = """\
# A web server that starts before the fence could serve the health file of an older image.
[Unit]
Requires=pyinfra-solo-fence.service
After=pyinfra-solo-fence.service
"""


@dataclass(frozen=True)
class Installed:
    """init: systemd, upstart or sysv. changed: the files written anew."""

    init: str
    changed: Sequence[Path]
    started: bool

    def lines(self) -> list[str]:
        found = [f"wrote {path}" for path in self.changed] or ["nothing to change"]
        return [f"init system: {self.init}", *found, *(["started pyinfra-solo"] if self.started else [])]


def install(init: str | None = None, now: bool = False, root: Path = Path("/")) -> Installed:
    """init: instead of the one found. now: start the boot run. root: an image that is not running.

    Idempotent. Raises UsageError when no init system is known, when the engine is not baked, without
    root and for a masked unit; SoloError when one of the init system's commands fails.
    """
    kind = init or detect(root)
    command = paths.BAKED.relative_to(paths.ROOT) / "bin/pyinfra-solo"
    if not (root / command).exists():
        raise UsageError(f"The units start /{command}, which is not here. Run bootstrap/install.sh.")
    try:
        changed = [
            _write(root / path, text, mode)
            for path, (text, mode) in _wanted(kind).items()
            if _differs(root / path, text, mode)
        ]
    except PermissionError as error:
        raise UsageError(f"{error.filename} cannot be written. Run as root.") from error
    running = root == Path("/") and _runs(kind)
    _enable(kind, root, running)
    if now:
        _start(kind, running)
    return Installed(init=kind, changed=changed, started=now)


def detect(root: Path = Path("/")) -> str:
    """The init system that runs, else the one that is installed. Raises UsageError."""
    if (root / "run/systemd/system").is_dir():
        return "systemd"
    # Upstart's own command; asking /sbin/init itself would, with an old SysV one, change the runlevel.
    if "upstart" in _output(["chroot", str(root), "/sbin/initctl", "version"]):
        return "upstart"
    if _link_name(root / "sbin/init") == "systemd":
        return "systemd"
    if (root / "etc/init.d").is_dir() and (root / "sbin/init").exists():
        return "sysv"
    raise UsageError("No init system is known here. Name one: --init systemd, upstart or sysv.")


def _wanted(kind: str) -> dict[str, tuple[str, int]]:
    if kind == "systemd":
        units = {
            f"etc/systemd/system/{name}": (_unit(name), 0o644)
            for name in ("pyinfra-solo-fence.service", "pyinfra-solo.service")
        }
        drop_ins = {
            f"etc/systemd/system/{name}.service.d/50-pyinfra-solo.conf": (_DROP_IN, 0o644)
            for name in _WEB_SERVERS
        }
        return units | drop_ins
    if kind == "upstart":
        return {
            f"etc/init/{name}.conf": (_unit(f"{name}.conf"), 0o644)
            for name in ("pyinfra-solo-fence", "pyinfra-solo")
        }
    return {
        f"etc/init.d/{name}": (_unit(f"{name}.lsb"), 0o755) for name in ("pyinfra-solo-fence", "pyinfra-solo")
    }


def _unit(name: str) -> str:
    return (files("pyinfra_solo") / "units" / name).read_text()


def _differs(path: Path, text: str, mode: int) -> bool:
    try:
        return path.read_text() != text or path.stat().st_mode & 0o777 != mode
    except OSError:
        return True


def _write(path: Path, text: str, mode: int) -> Path:
    if path.is_symlink() and path.readlink() == Path("/dev/null"):
        raise UsageError(f"{path.name} is masked. `systemctl unmask {path.name}`, and run this again.")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    durable.write(path, text, mode)
    return path


def _runs(kind: str) -> bool:
    return kind != "systemd" or Path("/run/systemd/system").is_dir()


def _enable(kind: str, root: Path, running: bool) -> None:
    if kind == "systemd":
        where = [] if running else [f"--root={root}"]
        _run(["systemctl", *where, "--quiet", "enable", "pyinfra-solo-fence.service", "pyinfra-solo.service"])
        if running:
            _run(["systemctl", "daemon-reload"])
    elif kind == "sysv":
        inside = [] if root == Path("/") else ["chroot", str(root)]
        debian = (root / "usr/sbin/update-rc.d").exists()
        for name in ("pyinfra-solo-fence", "pyinfra-solo"):
            _run([*inside, *(("update-rc.d", name, "defaults") if debian else ("chkconfig", "--add", name))])


def _start(kind: str, running: bool) -> None:
    if not running:
        raise UsageError(
            "--now needs the init system to be running; this looks like an image being built. Leave it out."
        )
    if kind == "systemd":
        _run(["systemctl", "start", "--no-block", "pyinfra-solo.service"])
    elif kind == "upstart":
        _run(["initctl", "start", "pyinfra-solo"])
    else:
        _run(["/etc/init.d/pyinfra-solo", "start"])


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise UsageError(f"There is no {words[0]} here: is the init system another? See --init.") from error
    if done.returncode:
        raise SoloError(f"`{' '.join(words)}` ended with {done.returncode}: {done.stderr.strip()[-300:]}")


def _link_name(path: Path) -> str:
    """The last name that a link leads to. Absolute links lead out of an image, so none is followed."""
    return path.readlink().name if path.is_symlink() else path.name


def _output(words: list[str]) -> str:
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=5,
            check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
