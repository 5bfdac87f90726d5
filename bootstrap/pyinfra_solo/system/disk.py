"""Name the file system that is full or read-only when a call has failed for that reason."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from pyinfra_solo import paths

_REASONS = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)}
_LITTLE = 1 << 20
"""Bytes that are free on a file system that counts as full."""


def problem(error: BaseException) -> str | None:
    """Say where the disk is full or read-only when that is the reason of `error`; None when it is not.

    An error of another kind may hold the output of a child, such as git. write(2) names no file, so then
    the file systems that a run writes to are asked.
    """
    if isinstance(error, OSError):
        if error.errno not in _REASONS:
            return None
        text, named = _REASONS[error.errno], error.filename
    else:
        lines = (line.strip() for line in str(error).splitlines())
        text = next((line for line in lines if any(reason in line for reason in _REASONS.values())), "")
        named = None
    if not text:
        return None
    where = os.fsdecode(named) if isinstance(named, (str, bytes)) else ", ".join(_suspects())
    return f"The disk is full or read-only: {where or 'the file system is not known, see df(1)'}: {text}."


def _suspects() -> Iterable[str]:
    """List the folders of a run whose file system has no room or cannot be written, and why."""
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - tempfile would try to write there
    for folder in dict.fromkeys((paths.STATE, paths.RUN, paths.BAKED, paths.APPS, temporary)):
        about = os.statvfs(next(path for path in (folder, *folder.parents) if path.exists()))
        if about.f_flag & os.ST_RDONLY:
            yield f"{folder} is read-only"
        elif about.f_bavail * about.f_frsize < _LITTLE:
            yield f"{folder} has {about.f_bavail * about.f_frsize >> 10} KiB free"
        elif about.f_files and not about.f_favail:
            yield f"{folder} has no inode free"
