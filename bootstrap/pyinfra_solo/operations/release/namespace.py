"""Show a build the machine read-only, in a mount namespace of its own. Standard library only.

Whatever a build writes then lies in its two folders, which no other account can reach, and no file
of any account is setuid for it (mount_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_PRIVATE = 0x1000, 1 << 18
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000  # one number on all architectures
_RDONLY, _NOSUID, _NODEV = 1, 2, 4


def enter(tree: Path, final: Path, scratch: Path) -> None:
    """Put this process into a mount namespace where `tree` is at `final`, and `scratch` beside it.

    All is read-only but `scratch` and `final`/.venv. Other entries of the folder of `final` are hidden.
    Needs CAP_SYS_ADMIN and Linux 5.12 (mount_setattr(2)). Raises OSError.
    """
    _call("unshare", _CLONE_NEWNS)
    _set("/", propagation=_MS_PRIVATE)
    inner = final.with_name(scratch.name)
    writable = {final / ".venv": tree / ".venv", inner: scratch}
    if Path("/dev/shm").is_dir():  # noqa: S108 - semaphores of Python's multiprocessing lie there
        writable[Path("/dev/shm")] = scratch  # noqa: S108
    # Opened now: the next mount hides their paths.
    sources = {target: os.open(path, os.O_PATH) for target, path in {final: tree, **writable}.items()}
    _call("mount", b"tmpfs", os.fsencode(final.parent), b"tmpfs", 0, b"mode=755,size=64k")
    final.mkdir()
    inner.mkdir()
    for target, source in sources.items():
        _call("mount", b"/proc/self/fd/%d" % source, os.fsencode(target), None, _MS_BIND, None)
        os.close(source)
    _set("/", on=_RDONLY | _NOSUID)
    for target in writable:
        _set(str(target), on=_NODEV, off=_RDONLY)


def _set(path: str, *, on: int = 0, off: int = 0, propagation: int = 0) -> None:
    """Change the attributes of the mount at `path` and of all below it."""
    attributes = struct.pack("4Q", on, off, propagation, 0)
    where = (_AT_FDCWD, os.fsencode(path), _AT_RECURSIVE)
    _call("syscall", _MOUNT_SETATTR, *where, attributes, len(attributes))


def _call(name: str, *arguments: int | bytes | None) -> None:
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    if ctypes.CDLL(None, use_errno=True)[name](*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
