"""Start and end a run: settings, deadline, lock, gate and report around the line."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pyinfra_solo.errors import DeadlineError, DiskError, LockedError, PausedError, SoloError, UsageError
from pyinfra_solo.gate import GatePolicy, close_gate, close_unfinished, read_gate
from pyinfra_solo.report.records import encode
from pyinfra_solo.run import settings as settings_file
from pyinfra_solo.run.console import console
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Settings
from pyinfra_solo.system import disk
from pyinfra_solo.system.deadline import Deadline, alarm
from pyinfra_solo.system.lock import held

_GRACE = 60.0
"""Seconds after the deadline in which a station may still end by its own time-out."""


@contextmanager
def start_run(
    config: Path | None,
    command: str,
    *,
    at_boot: bool = False,
    keep_report: bool = True,
    locked: bool = True,
    bounded: bool = True,
    at_end: Callable[[Any], None] | None = None,
) -> Iterator[tuple[Settings, Run]]:
    """Yield the settings and a Run; at the end write its report and apply the gate policy.

    at_boot: close the gate first, wait for the lock as long as the deadline allows, and close the gate
    on any failure. locked: take the run lock. bounded: set an alarm for the whole process, the last resort
    behind the stations' own time-outs. at_end: called with the report as JSON values, also of a failed run.

    Raises SoloError, and other errors unchanged.
    """
    run = Run(command, Deadline.after(Settings().limits.deadline), console(), keep_report=keep_report)
    if at_boot:
        close_gate("booting")
    try:
        with ExitStack() as stack:
            settings = settings_file.load(config)
            run.reports_kept = settings.limits.reports
            run.deadline = Deadline.after(settings.limits.deadline)
            if bounded:
                late = DeadlineError(
                    "Out of time: a station did not end by its own time-out. `pyinfra-solo report` shows which."
                )
                stack.enter_context(alarm(settings.limits.deadline + _GRACE, late))
            if locked:
                wait = run.deadline if at_boot else run.deadline.sooner(settings.limits.lock)
                lock = stack.enter_context(held(command, wait, run.say))
                run.on_station, run.lock = lock.at, (lock.descriptor,)
                close_unfinished()
            yield settings, run
    except BaseException as error:
        problem = _named(error)
        if isinstance(problem, LockedError):
            run.never_had_the_lock()
        if not isinstance(problem, PausedError):
            reason = str(problem) or type(problem).__name__
            GatePolicy(at_boot=at_boot).on_failure(reason, in_doubt=run.gate_in_doubt)
        run.end("failed", problem)
        if problem is error:
            raise
        raise problem from error
    finally:
        run.record(gate="open" if read_gate().open else "closed")
        run.save()
        if at_end:
            at_end(msgspec.json.decode(encode(run.report)))


def _named(error: BaseException) -> BaseException:
    """Return a SoloError for a full disk or a missing permission; other errors unchanged."""
    if isinstance(error, SoloError):
        return error
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return UsageError(f"{error.filename}: {error.strerror}. Run it as root.")
    found = disk.problem(error)
    return DiskError(f"{found} Make room, and run it once more.") if found else error
