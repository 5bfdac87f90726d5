"""Tries to change the script of the shell that started it, and output that is written already.

It runs as an account without rights, and prints what it could do: nothing.
"""

import ctypes
import fcntl
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

WORDS = b"\necho intruded; id\n"


def attacks(descriptor: int) -> Iterator[Callable[[], object]]:
    """Ways to change a file behind an open descriptor; each raises OSError or ValueError when it cannot."""

    def clear_append() -> None:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if not flags & os.O_APPEND:
            raise OSError("not append-only")
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)

    def punch_hole() -> None:
        keep_size_and_punch = 0x01 | 0x02  # fallocate(2)
        if ctypes.CDLL(None).fallocate(descriptor, keep_size_and_punch, ctypes.c_long(0), ctypes.c_long(4)):
            raise OSError("refused")

    yield clear_append
    yield lambda: os.ftruncate(descriptor, 0)
    yield punch_hole
    yield lambda: mmap.mmap(descriptor, 4).write(b"echo")


def descriptors(process: str) -> list[str]:
    try:
        return [f"/proc/{process}/fd/{name}" for name in os.listdir(f"/proc/{process}/fd")]  # noqa: PTH208
    except PermissionError:
        return []


def main() -> None:
    done: list[str] = []
    for path in [*descriptors("self"), *descriptors(sys.argv[1]), *descriptors(sys.argv[2])]:
        if os.path.realpath(path).startswith(("/dev/null", "pipe:")):
            continue
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            with suppress(OSError):
                descriptor = os.open(path, flags)
                os.write(descriptor, WORDS)
                done.append(f"wrote to {path}, {os.path.realpath(path)}")
    for descriptor in range(3, 64):
        with suppress(OSError):
            os.fstat(descriptor)
            os.write(descriptor, WORDS)
            done.append(f"wrote to the inherited descriptor {descriptor}")
    for descriptor in (0, 1, 2):
        for attack in attacks(descriptor):
            with suppress(OSError, ValueError):
                attack()
                done.append(f"descriptor {descriptor}: {attack.__name__}")
        with suppress(OSError):
            os.lseek(descriptor, 0, os.SEEK_SET)
    print(f"done: {done}")  # noqa: T201


main()
