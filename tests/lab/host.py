"""Use the host: its namespaces, mounts and processes.

Everything here needs root and Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.support import programs

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
        if not programs.run(["umount", point], check=False).ok:
            programs.run(["umount", "-l", point], check=False)


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
