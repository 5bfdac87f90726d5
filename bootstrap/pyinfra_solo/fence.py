"""The fence: keeps web servers from starting before this machine's own configuration is loaded.

units/pyinfra-solo-fence puts it there at boot, as the files below paths.RUN: `web-servers`, a boot's id, lets
them start; `waiting/` names those that were to start meanwhile; `fence.failed` says why the fence failed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.errors import ConvergeError

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
    from pyinfra_solo.system import processes  # 3 ms, which `gate status` does not need

    for script in _held_scripts():
        done = processes.run(["umount", "--lazy", script], timeout=_SECONDS)
        if done.status:
            reason = done.stderr.decode(errors="replace").strip()
            raise ConvergeError(f"{script} cannot be unmounted, so its web server cannot start: {reason}.")


def start_waiting(say: Callable[[str], None], names: Sequence[str] = WEB_SERVERS) -> list[str]:
    """Start those of `names` that the fence has kept down and that are enabled. Return their names.

    A role need not start what starts at every boot. say: is given a line for each. Raises ConvergeError.
    """
    started = []
    for name in names:
        waiting = paths.RUN / "waiting" / name
        if name not in WEB_SERVERS or not waiting.exists():
            continue
        release()
        if _is_enabled(name) and _control(name, "status"):
            say(_control(name, "start") or f"{name}: started, which the fence had kept down")
            started.append(name)
        waiting.unlink()
    return started


def running() -> list[str]:
    """List the web servers that run."""
    return [name for name in WEB_SERVERS if not _control(name, "status")]


def stop(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Stop these web servers. say: is given a line for each."""
    for name in names:
        say(_control(name, "stop") or f"{name}: stopped")


def _control(name: str, verb: str) -> str:
    """Control a web server by the init system; return what failed, or "". status: fails when it is down."""
    from pyinfra_solo.clients import systemd
    from pyinfra_solo.system import processes

    words = ["service", name, verb]
    if systemd.is_running():
        words = ["systemctl", verb, name]
    elif (paths.ROOT / f"etc/init/{name}.conf").exists() and (paths.ROOT / "sbin/initctl").exists():
        words = ["initctl", verb, name]  # Debian's service(8) does not know Upstart
    try:
        done = processes.run(words, timeout=_SECONDS)
    except TimeoutError as error:
        return f"`{' '.join(words)}` {error}"
    # initctl succeeds for every job that it knows.
    is_down = verb == "status" and words[0] == "initctl" and b"start/running" not in done.stdout
    return f"`{' '.join(words)}` ended with {done.status}" if done.status or is_down else ""


def _held_scripts() -> list[str]:
    """List the scripts that the fence has mounted something over (proc(5), mountinfo)."""
    wanted = {str(paths.ROOT / "etc/init.d" / name) for name in WEB_SERVERS}
    mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return [point for point in (line.split(" ")[4] for line in mounts) if point in wanted]


def _is_enabled(name: str) -> bool:
    from pyinfra_solo.clients import systemd
    from pyinfra_solo.system import processes

    if systemd.is_running():
        return processes.run(["systemctl", "is-enabled", "--quiet", name], timeout=_SECONDS).status == 0
    etc = paths.ROOT / "etc"
    links = [*etc.glob(f"rc[2345].d/S[0-9][0-9]{name}"), *etc.glob(f"runlevels/*/{name}")]
    return bool(links) or (etc / f"init/{name}.conf").exists()
