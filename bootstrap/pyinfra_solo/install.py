"""Install the boot units for the init system that runs this machine."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pyinfra_solo import durable
from pyinfra_solo.errors import SoloError, UsageError

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

    Idempotent. Raises UsageError when no init system is known, SoloError when one of its commands fails.
    """
    kind = init or detect(root)
    wanted = _wanted(kind)
    changed = [
        _write(root / path, text, mode)
        for path, (text, mode) in wanted.items()
        if _differs(root / path, text)
    ]
    running = root == Path("/") and _runs(kind)
    _enable(kind, root, running)
    if now:
        _start(kind, running)
    return Installed(init=kind, changed=changed, started=now)


def detect(root: Path = Path("/")) -> str:
    """The init system that runs, else the one that is installed. Raises UsageError."""
    if (root / "run/systemd/system").is_dir():
        return "systemd"
    said = (
        _output([str(root / "sbin/init"), "--version"])
        if (root / "sbin/init").exists() and root == Path("/")
        else ""
    )
    if "upstart" in said:
        return "upstart"
    target = os.path.realpath(root / "sbin/init")
    if target.endswith("/systemd"):
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


def _differs(path: Path, text: str) -> bool:
    try:
        return path.read_text() != text
    except OSError:
        return True


def _write(path: Path, text: str, mode: int) -> Path:
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
        for name in ("pyinfra-solo-fence", "pyinfra-solo"):
            _run([*([] if root == Path("/") else ["chroot", str(root)]), "update-rc.d", name, "defaults"])


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
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise SoloError(
            f"`{' '.join(words)}` failed with status {done.returncode}: {done.stderr.strip()[-300:]}"
        )


def _output(words: list[str]) -> str:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=5,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
