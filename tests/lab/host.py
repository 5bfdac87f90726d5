"""Use the host: commands with a time limit, namespaces, file systems.

Everything here needs root and Linux; nothing waits without a limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "git": "git",
    "ssh-keygen": "openssh-client",
}
"""Command -> the Debian package that brings it."""

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), fs/ext4/ext4.h
SHUTDOWN_NOLOGFLUSH = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab itself failed: says what was tried and what came of it."""


@dataclass(frozen=True)
class Result:
    """Output and exit status of a command."""

    stdout: str
    stderr: str
    code: int

    @property
    def ok(self) -> bool:
        """True when the exit status is 0."""
        return self.code == 0


def missing() -> str | None:
    """Say in one sentence why the lab cannot work here; None when it can."""
    if os.geteuid() != 0:
        return "The lab needs root: it makes namespaces, mounts and containers. Run it as root."
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    packages = {package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)}
    if packages:
        names = " ".join(sorted(packages))
        return f"The lab needs: {names}. Run tests/lab/prepare.sh, which installs them."
    return None


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 60,
    check: bool = True,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
) -> Result:
    """Run a command; after `timeout` seconds it and all its children in the session are killed.

    Raises LabError on a time-out, and on an exit status other than 0 when `check` is set.
    """
    words = [str(word) for word in argv]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        text = (out + err).decode(errors="replace")
        raise LabError(f"{' '.join(words)}: not done after {timeout} s\n{text}") from None
    result = Result(out.decode(errors="replace"), err.decode(errors="replace"), process.returncode)
    if check and result.code != 0:
        raise LabError(f"{' '.join(words)}: exit status {result.code}\n{result.stdout}{result.stderr}")
    return result


def wait_for(what: str, ready: Callable[[], bool], timeout: float, every: float = 0.05) -> None:
    """Poll `ready` until it is true; LabError naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"not within {timeout} s: {what}")
        time.sleep(every)


@contextlib.contextmanager
def in_network(namespace: Path) -> Iterator[None]:
    """Put this thread, and what it starts, into another network namespace inside the block."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(namespace, os.O_RDONLY)
    try:
        _setns(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(there)
        os.close(home)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


def pull_the_plug(mounted: Path) -> None:
    """Cut an ext4 file system off its disk at once, without flushing its journal."""
    descriptor = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NOLOGFLUSH))
    finally:
        os.close(descriptor)


def mounts_under(folder: Path) -> list[Path]:
    """List mount points at or below `folder`, the innermost first."""
    points = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = Path(line.split()[1].replace("\\040", " "))
        if point == folder or folder in point.parents:
            points.append(point)
    return points[::-1]


def mount_options(point: Path) -> list[str]:
    """Return the options of the mount at `point`."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    words = next(line.split() for line in reversed(lines) if line.split()[1] == str(point))
    return words[3].split(",")


def unmount_under(folder: Path) -> None:
    """Unmount everything at or below `folder`; lazily when something still holds it."""
    for point in mounts_under(folder):
        if not run(["umount", point], check=False).ok:
            run(["umount", "-l", point], check=False)


def alive(pid: int, start: str = "") -> bool:
    """Tell whether a process lives and, with `start`, is the one that started at that tick."""
    ticks = started(pid)
    return ticks != "" and start in ("", ticks)


def started(pid: int) -> str:
    """Return the clock tick at which a process started (proc(5), stat, field 22); '' when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
