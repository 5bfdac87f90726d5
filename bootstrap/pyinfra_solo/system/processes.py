"""Children in a session of their own, and ending all that belongs to it.

A command of an operation gets a process group of its own (so that its time-out ends it whole), in
the session of the converge that started it (so that the run's deadline ends everything). A daemon
that called setsid(2) has left on purpose, and lives.
"""

import os
import signal
import time
from pathlib import Path

_GRACE = 5.0


def members(session: int) -> list[int]:
    """The processes of a session, zombies apart (proc(5), /proc/PID/stat, fields 3 and 6)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def end_session(session: int, grace: float = _GRACE) -> None:
    """SIGTERM to all of it, and SIGKILL to what is left after `grace` seconds."""
    _signal(members(session), signal.SIGTERM)
    until = time.monotonic() + grace
    while (left := members(session)) and time.monotonic() < until:
        time.sleep(0.05)
    # Not for ever: a process in uninterruptible sleep (a dead network disk) cannot be ended.
    until = time.monotonic() + grace
    while (left := members(session)) and time.monotonic() < until:
        _signal(left, signal.SIGKILL)
        time.sleep(0.02)


def end_group(group: int, grace: float = _GRACE) -> None:
    """The same for a process group whose leader is this process's own child, not yet waited for."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if _has_ended(group):
                break
            time.sleep(0.02)
    # What ignored SIGTERM and outlived its leader is still in the group.
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _has_ended(child: int) -> bool:
    """gevent, under pyinfra's own command, waits for every child itself."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
