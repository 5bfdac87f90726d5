"""A machine: a real init system as PID 1 in systemd-nspawn, with a disk that can lose power."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.cgroup import Cgroup
from tests.lab.disk import Disk
from tests.lab.image import ENVIRONMENT, Image, write_script
from tests.lab.network import Link, Network
from tests.support import programs
from tests.support.programs import LabError, Result

NSPAWN = [
    "systemd-nspawn",
    "--quiet",
    "--keep-unit",
    "--register=no",
    "--console=read-only",
    "--link-journal=no",
    "--resolv-conf=off",
    "--timezone=off",
    "--settings=no",
    "--kill-signal=SIGRTMIN+3",
    # nspawn 252 gives CAP_NET_ADMIN only with --private-network, not with a namespace made by others.
    # systemd needs the rest for IPAddressDeny=; without it a unit's addresses are not restricted.
    "--capability=CAP_NET_ADMIN,CAP_BPF",
    "--system-call-filter=bpf",
]
INIT = {
    "systemd": ["--boot"],
    "sysv": ["/sbin/init"],  # `--boot` prefers systemd when both are installed
    "openrc": ["/sbin/init"],
}
REBOOTED = 133  # nspawn's exit status when the machine asked for a reboot and --keep-unit is set


@dataclass
class BootedMachine:
    """One machine of a lab; off until `power_on`. Names are host names."""

    name: str
    folder: Path
    disk: Disk
    network: Network
    link: Link
    init: str = "systemd"
    powered_on: float = 0.0
    _nspawn: subprocess.Popen[bytes] | None = None
    _leader: int = 0
    _cgroup: Cgroup = field(init=False)

    def __post_init__(self) -> None:
        self._cgroup = Cgroup(f"{self.network.name}.{self.name}")

    @property
    def address(self) -> str:
        """The IPv4 address that DHCP gives it."""
        return self.link.address

    @property
    def image(self) -> Image:
        """The image that it was made from."""
        return self.disk.image

    @property
    def is_on(self) -> bool:
        """True while its PID 1 lives."""
        return self._nspawn is not None and self._nspawn.poll() is None

    def power_on(self) -> None:
        """Start it and return as soon as its PID 1 lives. Sets `powered_on` (monotonic, s)."""
        if self.is_on:
            raise LabError(f"{self.name} is on already")
        self.disk.mount()
        self.link = self.network.link(self.name)
        self._cgroup.make()
        command = [
            *NSPAWN,
            f"--directory={self.disk.root}",
            f"--machine={self.network.name}-{self.name}",
            f"--hostname={self.name}",
            f"--network-namespace-path={self.link.namespace}",
            *INIT[self.init],
        ]
        self.powered_on = time.monotonic()
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", f'{self._cgroup.enter_script()}exec "$@"', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self._leader = 0
        programs.wait_for(f"{self.name}'s PID 1", self._find_leader, timeout=20, every=0.01)

    def _find_leader(self) -> bool:
        nspawn = self._nspawn
        if nspawn is None or nspawn.poll() is not None:
            raise LabError(f"{self.name} did not start:\n{self.console()[-2000:]}")
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                ids = next(ln for ln in status.splitlines() if ln.startswith("NSpid:")).split()
                # Before its exec the child is still nspawn, and its /proc and mounts are not made.
                if len(ids) > 2 and ids[-1] == "1" and "systemd-nspawn" not in _command(pid):
                    self._leader = int(pid)
        return self._leader != 0

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = 60,
        check: bool = False,
        stdin: str | bytes = b"",
        env: dict[str, str] | None = None,
    ) -> Result:
        """Run a command as root inside: in its namespaces when it is on, else on its disk.

        A string is given to `sh -c`. Raises LabError after `timeout` seconds, and with `check`
        when the exit status is not 0.
        """
        argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
        words = ["env", "-i", *(f"{k}={v}" for k, v in {**ENVIRONMENT, **(env or {})}.items())]
        if self.is_on:
            enter = ["nsenter", "-t", str(self._leader), "-a", "--"]
        else:
            self.disk.mount()
            enter = ["chroot", str(self.disk.root)]
        given = stdin.encode() if isinstance(stdin, str) else stdin
        return programs.run([*enter, *words, *argv], timeout=timeout, check=check, stdin=given)

    def read(self, path: str) -> str:
        """Return a file's text. Raises LabError when there is none."""
        return self.run(["cat", path], check=True).stdout

    def exists(self, path: str) -> bool:
        """Tell whether `path` exists."""
        return self.run(["test", "-e", path]).ok

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, with its folders; also before the first power-on."""
        self.run(write_script(path, mode), stdin=text, check=True)

    def inside(self, path: str) -> Path:
        """Return the host's path to `path` while the machine is on, with what is mounted there."""
        self._must_be_on()
        return Path(f"/proc/{self._leader}/root{path}")

    def wait_running(self, timeout: float = 60) -> float:
        """Wait until the init system has finished booting. Return the seconds since power-on.

        systemd: the state `running`, and an address; LabError with the failed units when `degraded`. The others:
        their default runlevel has been entered and its scripts are done.
        """
        programs.wait_for(f"{self.name} to run", self._booted, timeout, every=0.1)
        if self.init == "systemd":
            # Without our unit nothing wants this target, and nothing has waited for DHCP.
            self.run("systemctl start network-online.target", timeout=timeout, check=True)
        return time.monotonic() - self.powered_on

    def _booted(self) -> bool:
        self._must_be_on()
        if self.init != "systemd":
            script = "runlevel | grep -q ' [2-5]' && ! pgrep -x 'rc|openrc|startpar' > /dev/null"
            return self.run(script, timeout=10).ok
        state = self.run(["systemctl", "is-system-running"], timeout=10).stdout.strip()
        if state == "degraded":
            failed = self.run(["systemctl", "--failed", "--no-legend"], timeout=10).stdout
            raise LabError(f"{self.name} is degraded; failed units:\n{failed}")
        return state == "running"

    def _must_be_on(self) -> None:
        if not self.is_on:
            raise LabError(f"{self.name} is off:\n{self.console()[-2000:]}")

    def power_cut(self) -> None:
        """Cut the power: an ext4 disk loses what it has not written yet, every process ends."""
        self.disk.pull_the_plug()
        self._end()
        self.disk.unmount()

    def kill(self) -> None:
        """End every process at once; its disk loses nothing."""
        self._end()

    def power_off(self, timeout: float = 30) -> None:
        """Shut down in order; killed when it takes longer than `timeout` seconds."""
        if self.is_on:
            self.run("poweroff", timeout=10)
            with contextlib.suppress(LabError):
                programs.wait_for(f"{self.name} off", lambda: not self.is_on, timeout)
        self._end()

    def reboot(self, timeout: float = 30) -> None:
        """Let it shut down and start again; returns when the new PID 1 lives."""
        self._must_be_on()
        self.run("reboot", timeout=10)
        self.restart_when_off(timeout)

    def restart_when_off(self, timeout: float = 30) -> None:
        """Wait until it went down by itself, as in a reboot it asked for, and power it on."""
        programs.wait_for(f"{self.name} to go down", lambda: not self.is_on, timeout)
        self._end()
        self.power_on()

    def _end(self) -> None:
        self._cgroup.kill()
        if self._nspawn is not None:
            with contextlib.suppress(ProcessLookupError):
                self._nspawn.kill()
            self._nspawn.wait(timeout=10)
        self._nspawn = None
        self._leader = 0
        self._cgroup.remove()

    def close(self) -> None:
        """End it and let go of its disk, which stays where it is."""
        self._end()
        self.network.unlink(self.name)
        self.disk.unmount()

    def freeze(self) -> None:
        """Stop every process where it stands; `thaw` lets them go on."""
        self._cgroup.freeze(True)

    def thaw(self) -> None:
        """Let frozen processes go on."""
        self._cgroup.freeze(False)

    def unplug(self) -> None:
        """Pull its network cable; holds over power-offs until `plug`."""
        self.network.plug(self.name, into=False)

    def plug(self) -> None:
        """Put its network cable back."""
        self.network.plug(self.name)

    @property
    def _console(self) -> Path:
        return self.folder / "console.log"

    def console(self) -> str:
        """Return what was written to its console in all its boots."""
        if not self._console.exists():
            return ""
        return self._console.read_text(errors="replace").replace("\r", "")

    def journal(self, unit: str = "", *, boot: bool = False) -> str:
        """Return its journal, or one unit's; with `boot`, of the current boot alone. Works when off too."""
        words = ["journalctl", "--no-pager", "-o", "short-monotonic", "-q"]
        words += ["-u", unit] if unit else []
        words += ["-b"] if boot else []
        if not self.is_on:
            words += ["-D", "/var/log/journal"]
        return self.run(words, timeout=30).stdout


def _command(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]
