"""Runs one command and says what it took, as JSON: wall seconds, CPU seconds of its whole tree, the peak
of its largest process in MB, and its exit status.

python3 -I -S measure.py SECONDS OUTPUT INPUT COMMAND [ARGUMENT ...]

A process of its own, and a small one: ru_maxrss of a child is never less than what its parent held when
it forked. After SECONDS the command and its children are killed, and the exit status is None.
"""

import json
import os
import signal
import sys
import time


def main(seconds: int, output: str, given: str, argv: list[str]) -> None:
    """The command's output goes to the file `output`; its stdin is the file `given`."""
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    file_actions = [
        (os.POSIX_SPAWN_OPEN, 0, given, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, out, 2),
    ]
    late = False

    def end(*_: object) -> None:
        nonlocal late
        late = True
        os.killpg(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    began = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=file_actions, setsid=True)
    signal.alarm(seconds)
    _, status, used = os.wait4(pid, 0)
    figures = {
        "wall": time.monotonic() - began,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 1024,
        "code": None if late else os.waitstatus_to_exitcode(status),
    }
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
