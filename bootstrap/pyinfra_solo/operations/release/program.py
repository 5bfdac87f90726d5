"""Run `release check JSON` or `release apply JSON` on the machine that gets the release.

Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from pyinfra_solo.clients.git_core import GitError
from pyinfra_solo.errors import SoloError
from pyinfra_solo.operations.release.check import check
from pyinfra_solo.operations.release.make import Maker, is_full
from pyinfra_solo.operations.release.request import Request


def main(mode: str, words: str) -> int:
    """Run the program and return its exit status.

    stdout has the JSON of `check`, or lines for the operator; stderr has errors.
    """
    request = Request(**json.loads(words))
    os.umask(0o022)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _end)

    def say(text: str, file: Any = None) -> None:
        plain = "".join(one if one.isprintable() else "?" for one in text)
        line = f"{request.app}: {plain}".encode("ascii", "replace").decode()
        print(line, file=file or sys.stdout, flush=True)

    try:
        if mode == "check":
            print(json.dumps(check(request)))  # noqa: T201 - a program's output
        else:
            Maker(request, time.monotonic() + request.timeout, say).make()
    except Exception as error:  # noqa: BLE001 - also what a hostile tree makes of Python: RecursionError, MemoryError
        own = isinstance(error, (SoloError, GitError, OSError))
        say(str(error) if own and str(error) else f"{type(error).__name__}: {error}", sys.stderr)
        if is_full(request.base):  # last: the line that is shown
            say(f"the disk is full at {request.base}. Make room there.", sys.stderr)
        return 1
    return 0


def _end(number: int, _frame: object) -> None:
    """Unwind, so that children of other sessions end too."""
    raise SystemExit(128 + number)
