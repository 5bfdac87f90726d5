"""Install the boot units for the init system of a machine or of an image."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo import fence, paths
from pyinfra_solo.clients import systemd
from pyinfra_solo.errors import SoloError, UsageError
from pyinfra_solo.system import durable, processes

_UNITS = ("pyinfra-solo-fence", "pyinfra-solo")
_SYSTEMD_UNITS = (*_UNITS, "pyinfra-solo-shutdown")
_UPSTART_JOBS = (*_UNITS, "pyinfra-solo-fence-web")
_INITTAB = """\
# pyinfra-solo: the gate closes before any service stops.
pg:016:wait:/opt/pyinfra-solo/bin/pyinfra-solo-fence close
"""
"""The first entry for these runlevels: init waits for it before it starts the next (inittab(5))."""
_SECONDS = 300.0
"""For each command of the init system."""


@dataclass(frozen=True)
class Installed:
    """The result. init: systemd, upstart or sysv. changed: the files that were written."""

    init: str
    changed: Sequence[Path]
    started: bool

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        found = [f"wrote {path}" for path in self.changed] or ["nothing to change"]
        return [f"init system: {self.init}", *found, *(["started pyinfra-solo"] if self.started else [])]


def install(init: str | None = None, now: bool = False, root: Path = Path("/")) -> Installed:
    """Write the units that differ, and enable them. Idempotent.

    init: systemd, upstart or sysv, instead of detecting it. now: start the boot run. root: `/`, or
    the folder of an image that is not running.
    Raises UsageError when no init system is known, when the engine is not installed, without
    permission, and for a masked unit; SoloError when one of the init system's commands fails.
    """
    kind = init or detect(root)
    command = paths.BAKED.relative_to(paths.ROOT) / "bin/pyinfra-solo"
    if not (root / command).exists():
        raise UsageError(f"The units start /{command}, which is not there. Run bootstrap/install.sh.")
    try:
        wanted = ((root / path, text, mode) for path, (text, mode) in _wanted(kind).items())
        changed = [_write(*unit) for unit in wanted if _differs(*unit)]
        changed += _add_to_inittab(root / "etc/inittab") if kind == "sysv" else []
    except PermissionError as error:
        raise UsageError(f"{error.filename} cannot be written. Run as root.") from error
    running = root == Path("/") and (kind != "systemd" or systemd.is_running())
    _enable(kind, root, running)
    if now:
        _start(kind, running)
    return Installed(init=kind, changed=changed, started=now)


def detect(root: Path = Path("/")) -> str:
    """Detect the init system that runs, else the one that is installed. Raises UsageError."""
    if systemd.is_running(root):
        return "systemd"
    # Not `/sbin/init --version`: an old SysV init would take it for a runlevel.
    with suppress(OSError):
        if b"upstart" in processes.run(["chroot", str(root), "/sbin/initctl", "version"], timeout=5).stdout:
            return "upstart"
    if _link_name(root / "sbin/init") == "systemd":
        return "systemd"
    if (root / "etc/init.d").is_dir() and (root / "sbin/init").exists():
        return "sysv"
    raise UsageError("The init system is not known. Name it: --init systemd, upstart or sysv.")


def _wanted(kind: str) -> dict[str, tuple[str, int]]:
    """Map each path below the root to its text and mode."""
    if kind == "upstart":
        return {f"etc/init/{name}.conf": (_unit(f"{name}.conf"), 0o644) for name in _UPSTART_JOBS}
    if kind == "sysv":
        return {f"etc/init.d/{name}": (_unit(f"{name}.lsb"), 0o755) for name in _UNITS}
    units = {f"etc/systemd/system/{name}.service": f"{name}.service" for name in _SYSTEMD_UNITS}
    drop_ins = {
        f"etc/systemd/system/{server}.service.d/50-pyinfra-solo.conf": "web-server.conf"
        for server in fence.WEB_SERVERS
    }
    return {path: (_unit(name), 0o644) for path, name in (units | drop_ins).items()}


def _add_to_inittab(path: Path) -> list[Path]:
    """Make ours the first entry of the file, where init has one."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    if _INITTAB in text:
        return []
    durable.write(path, _INITTAB + text, path.stat().st_mode & 0o777)
    return [path]


def _unit(name: str) -> str:
    return Path(__file__).with_name(name).read_text()


def _differs(path: Path, text: str, mode: int) -> bool:
    try:
        return path.read_text() != text or path.stat().st_mode & 0o777 != mode
    except OSError:
        return True


def _write(path: Path, text: str, mode: int) -> Path:
    if path.is_symlink() and path.readlink() == Path("/dev/null"):
        raise UsageError(f"{path.name} is masked. Run `systemctl unmask {path.name}`, then this command.")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    durable.write(path, text, mode)
    return path


def _enable(kind: str, root: Path, running: bool) -> None:
    if kind == "systemd":
        where = [] if running else [f"--root={root}"]
        _run(["systemctl", *where, "--quiet", "enable", *(f"{name}.service" for name in _SYSTEMD_UNITS)])
        if running:
            _run(["systemctl", "daemon-reload"])
    elif kind == "sysv":
        inside = [] if root == Path("/") else ["chroot", str(root)]
        debian = (root / "usr/sbin/update-rc.d").exists()
        for name in _UNITS:
            _run([*inside, *(("update-rc.d", name, "defaults") if debian else ("chkconfig", "--add", name))])


def _start(kind: str, running: bool) -> None:
    if not running:
        raise UsageError(
            "--now needs a running init system, and there is none, as in an image being built. Leave it out."
        )
    if kind == "systemd":
        _run(["systemctl", "start", "--no-block", "pyinfra-solo.service"])
    elif kind == "upstart":
        _run(["initctl", "start", "pyinfra-solo"])
    else:
        _run(["/etc/init.d/pyinfra-solo", "start"])


def _run(words: list[str]) -> None:
    try:
        done = processes.run(words, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no {words[0]}. Name the init system of this machine: see --init."
        ) from error
    except TimeoutError as error:
        raise SoloError(f"`{' '.join(words)}` {error}.") from error
    if done.status:
        reason = done.stderr.decode(errors="replace").strip()[-300:]
        raise SoloError(f"`{' '.join(words)}` ended with {done.status}: {reason}")


def _link_name(path: Path) -> str:
    """Return the name that the path, or the link there, ends with.

    No link is followed: an absolute one leads out of an image.
    """
    return path.readlink().name if path.is_symlink() else path.name
