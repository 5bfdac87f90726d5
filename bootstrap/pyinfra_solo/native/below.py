"""Walk through a folder's whole tree by descriptors; see `held`."""

import errno
import os
import time
from collections.abc import Iterator

from pyinfra_solo.native.held import FILE, FOLDER, Held, RefusedError


def below(top: Held, timeout: float) -> Iterator[Held]:
    """Yield all files and folders below `top`, each before what it holds; no link is followed.

    Only one folder is open, however deep it is: an account cannot use up the descriptors. A file that
    has gone meanwhile is left out. timeout: seconds. Raises OSError; TimeoutError; RefusedError for a
    folder that was moved meanwhile, and for a file that another account may have linked there.
    """
    if top.file is None or top.status is None or not top.is_folder():
        return
    until = time.monotonic() + timeout
    folder, levels = os.dup(top.file), [(top.status, _names(top.file))]
    try:
        while True:
            if time.monotonic() > until:
                raise TimeoutError(errno.ETIMEDOUT, f"took longer than {timeout:g} s")
            status, names = levels[-1]
            if not names:
                levels.pop()
                if not levels:
                    return
                folder = _parent(folder, levels[-1][0])
                continue
            try:
                file = os.open(name := names.pop(), FILE, dir_fd=folder)
            except FileNotFoundError:
                continue
            held = Held(folder, name, file, os.fstat(file), by_link=False)
            try:
                held.check_names(status)
                yield held
                if held.is_folder() and held.status:
                    levels.append((held.status, _names(file)))
                    folder, file = file, folder
            finally:
                os.close(file)
    finally:
        os.close(folder)


def _parent(folder: int, expected: os.stat_result) -> int:
    """Return a descriptor of the folder above, and close that of `folder`."""
    above = os.open("..", FOLDER, dir_fd=folder)
    if not os.path.samestat(os.fstat(above), expected):
        os.close(above)
        raise RefusedError(
            f"{os.readlink(f'/proc/self/fd/{folder}')} is refused: another account moved this folder while its tree "
            f"was changed. Repeat the run; stop what moves it."
        )
    os.close(folder)
    return above


def _names(folder: int) -> list[str]:
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.listdir(listed)
    finally:
        os.close(listed)
