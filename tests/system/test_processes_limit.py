"""Output beyond the limit gives nobody a way to change what was printed before."""

from __future__ import annotations

import os
import sys

import pytest

from pyinfra_solo.system.processes import run

FORGES = """
import fcntl, os, sys, time
os.setresuid(65534, 65534, 65534)
os.write(1, b"y" * 5000)
until = time.monotonic() + 20
cleared = False
while time.monotonic() < until and not cleared:
    try:
        fcntl.fcntl(1, fcntl.F_SETFL, 0)
        cleared = True
    except OSError:
        if os.fstat(1).st_size <= 1000:
            os.write(1, b"y" * 5000)
os.pwrite(1, b"FORGED", 0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up an account")
def test_first_lines_stay_when_the_flag_is_off_for_a_moment() -> None:
    script = f"echo FIRST; {sys.executable} -c '{FORGES}'"
    done = run(["sh", "-c", script], timeout=40, max_output=1000)

    assert done.stdout == b"FIRST\n" + b"y" * 994
    assert done.cut
