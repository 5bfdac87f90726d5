"""How a run begins and ends: settings, deadline, lock and report around the line."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pyinfra_solo.errors import DeadlineError, LockedError, PausedError, SoloError, UsageError
from pyinfra_solo.gate import close_gate, read_gate
from pyinfra_solo.report.records import encode
from pyinfra_solo.run import settings as settings_file
from pyinfra_solo.run.console import console
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.system.deadline import Deadline, alarm
from pyinfra_solo.system.lock import held

_GRACE = 60.0
"""Seconds after the deadline in which a station may still end by its own bound."""


class DiskError(SoloError):
    """The disk is full or read-only."""


@contextmanager
def start_run(
    config: Path | None,
    name: str,
    *,
    keep_report: bool = True,
    locked: bool = True,
    bounded: bool = True,
    then: Callable[[Any], None] | None = None,
) -> Iterator[tuple[Settings, Run]]:
    """A run under way. Whatever goes wrong ends its report and leaves here as a SoloError.

    bounded: this process is ours alone: an alarm ends what no station's own bound has ended.
    then: given the report as JSON values at the end, also of a failed run.
    """
    run = Run(name, Deadline.after(Settings().limits.deadline), console(), keep_report=keep_report)
    if name == "boot":
        close_gate("booting")
    try:
        with ExitStack() as stack:
            settings = settings_file.load(config)
            run.keep = settings.limits.reports
            run.deadline = Deadline.after(settings.limits.deadline)
            if bounded:
                late = DeadlineError(
                    "Out of time: a station did not end by itself. See the report for which."
                )
                stack.enter_context(alarm(settings.limits.deadline + _GRACE, late))
            if locked:
                wait = run.deadline if name == "boot" else run.deadline.sooner(settings.limits.lock)
                lock = stack.enter_context(held(name, wait, run.say))
                run.at, run.lock = lock.at, (lock.descriptor,)
            yield settings, run
    except BaseException as error:
        problem = _named(error)
        if isinstance(problem, LockedError):
            run.gives_way()
        if name == "boot" and not isinstance(problem, PausedError):
            close_gate(str(problem))
        run.end("failed", problem)
        if problem is error:
            raise
        raise problem from error
    finally:
        run.report.gate = "open" if read_gate().open else "closed"
        run.save()
        if then:
            then(msgspec.json.decode(encode(run.report)))


_DISK = {number: os.strerror(number) for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)}


def _named(error: BaseException) -> BaseException:
    """What the disk does to any station gets a name; a bug keeps its own and its traceback."""
    if isinstance(error, SoloError):
        return error
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return UsageError(f"{error.filename}: {error.strerror}. Run it as root.")
    if isinstance(error, OSError):
        said = f"{error.filename or 'a file'}: {error.strerror}" if error.errno in _DISK else None
    else:  # a child's last words, such as git's
        lines = str(error).splitlines()
        said = next((line for line in lines if any(text in line for text in _DISK.values())), None)
    return DiskError(f"The disk is full or read-only: {said}. Make room, and run again.") if said else error
