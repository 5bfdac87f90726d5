"""Write a held file in place, as cp(1) does: a file with several names, a mount point, a device, a pipe."""

import contextlib
import errno
import os
import select
import stat
import time

from pyinfra_solo.native.held import Held

TIMEOUT = 600.0
"""Seconds, when the caller names none."""


def write(
    place: Held,
    data: bytes,
    *,
    timeout: float = TIMEOUT,
    mode: int = 0o600,
    like: os.stat_result | None = None,
) -> None:
    """Write `data` to the file, or to a new one with `mode` and the process's umask.

    timeout: seconds for a pipe or terminal whose reader is slow. like: whose owner and mode it gets.
    Raises OSError: for a pipe without a reader, and where the disk is full; then the old file stays.
    Raises RefusedError for a file that another account may have made.
    """
    if not is_of_the_kernel(place):
        place.check_in_place()
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    if place.file is None:
        new = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(place.name, flags | new, mode, dir_fd=place.folder)
    else:
        descriptor = os.open(place.reached, flags | (os.O_TRUNC if is_of_the_kernel(place) else 0))
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _overwrite(descriptor, data)
        else:
            write_all(descriptor, data, timeout)
        if like:
            os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        with contextlib.suppress(OSError):  # fsync(2) fails on a pipe or a device
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_of_the_kernel(place: Held) -> bool:
    """Tell whether no temporary file can be beside it, and a write has a meaning of its own."""
    return place.path.startswith(("/proc/", "/sys/"))


def _overwrite(descriptor: int, data: bytes) -> None:
    """Write what is longer than the old file first: only that needs space on the disk."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        write_all(descriptor, data)
        return
    view = memoryview(data)
    try:
        os.lseek(descriptor, size, os.SEEK_SET)
        write_all(descriptor, view[size:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise
    os.lseek(descriptor, 0, os.SEEK_SET)
    write_all(descriptor, view[:size])
    os.ftruncate(descriptor, len(data))


def write_all(descriptor: int, data: bytes | memoryview, timeout: float = TIMEOUT) -> None:
    """Write all of `data`. Raises OSError; TimeoutError when nobody reads it within `timeout` seconds.

    The descriptor of a pipe or terminal must not block.
    """
    view, until = memoryview(data), time.monotonic() + timeout
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            ready = select.poll()
            ready.register(descriptor, select.POLLOUT)
            left = until - time.monotonic()
            if left <= 0 or not ready.poll(left * 1000):
                late = (
                    f"its reader took longer than {timeout:g} s: {len(view)} of {len(data)} bytes are unread"
                )
                raise TimeoutError(errno.ETIMEDOUT, late) from None
