"""The fence: keeps web servers from starting before this machine's own configuration is loaded.

units/pyinfra-solo-fence puts it there at boot, as the files below paths.RUN: `web-servers`, a boot's id, lets
them start; `waiting/` names those that were to start meanwhile; `fence.failed` says why the fence failed.
"""

from contextlib import suppress
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.clients import systemd
from pyinfra_solo.errors import ConvergeError
from pyinfra_solo.system import processes

WEB_SERVERS = ("nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy")
"""Names of their units and scripts."""
_SECONDS = 120.0
"""For a start of a web server."""


def problem() -> str:
    """Return why the fence failed at boot, and what to do, as one line; "" when it did not fail."""
    try:
        return (paths.RUN / "fence.failed").read_text(errors="replace").strip()
    except OSError:
        return ""


def release() -> None:
    """Let web servers start from now on, in this boot. Starts none.

    After a fence that failed, the scripts below /etc/init.d stay held, and systemd starts the fence first.
    Raises ConvergeError.
    """
    paths.RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
    (paths.RUN / "web-servers").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    if problem():
        return
    for script in _held_scripts():
        done = processes.run(["umount", "--lazy", script], timeout=_SECONDS)
        if done.status:
            reason = done.stderr.decode(errors="replace").strip()
            raise ConvergeError(f"{script} cannot be unmounted, so its web server cannot start: {reason}.")


def start_waiting() -> list[str]:
    """Start the web servers that the fence has kept down and that are enabled; call `release` before.

    A role need not start what starts at every boot. Return a line for each that was started, or could not be.
    """
    lines = []
    for name in WEB_SERVERS:
        try:
            (paths.RUN / "waiting" / name).unlink()
        except OSError:
            continue
        if not _is_enabled(name):
            continue
        words = _start(name)
        status: int | str = "a time-out"
        with suppress(TimeoutError):
            status = processes.run(words, timeout=_SECONDS).status
        lines.append(f"{name}: started" if status == 0 else f"`{' '.join(words)}` ended with {status}")
    return lines


def _held_scripts() -> list[str]:
    """List the scripts that the fence has mounted something over (proc(5), mountinfo)."""
    wanted = {str(paths.ROOT / "etc/init.d" / name) for name in WEB_SERVERS}
    mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return [point for point in (line.split(" ")[4] for line in mounts) if point in wanted]


def _start(name: str) -> list[str]:
    if systemd.is_running():
        return ["systemctl", "start", name]
    # Debian's service(8) does not know Upstart.
    is_job = (paths.ROOT / f"etc/init/{name}.conf").exists() and (paths.ROOT / "sbin/initctl").exists()
    return ["initctl", "start", name] if is_job else ["service", name, "start"]


def _is_enabled(name: str) -> bool:
    if systemd.is_running():
        return processes.run(["systemctl", "is-enabled", "--quiet", name], timeout=_SECONDS).status == 0
    etc = paths.ROOT / "etc"
    links = [*etc.glob(f"rc[2345].d/S[0-9][0-9]{name}"), *etc.glob(f"runlevels/*/{name}")]
    return bool(links) or (etc / f"init/{name}.conf").exists()
