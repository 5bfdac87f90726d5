"""Ask Upstart for the state of a job (initctl(8)). Debian's service(8) does not know Upstart."""

import os
import re
import shutil
import time
from pathlib import Path

from pyinfra_solo.system import processes

JOBS = Path("/etc/init")


def has_job(name: str) -> bool:
    """Check that Upstart is here, and has the job; a package's service may have an LSB script alone."""
    return "/" not in name and (JOBS / f"{name}.conf").is_file() and shutil.which("initctl") is not None


def problem(name: str, stable: float, timeout: float) -> str | None:
    """Return why the job is not running, or has been for less than `stable` seconds; None when it is well."""
    try:
        done = processes.run(["initctl", "status", name], timeout=timeout, merge=True)
    except TimeoutError:
        return f"initctl did not answer in {timeout:g} s"
    except OSError as error:
        return f"initctl cannot be run: {error}"
    state = (done.stdout.decode(errors="replace").strip().splitlines() or ["initctl gave no answer"])[0]
    if done.status or " start/running" not in state:
        return state[-200:]
    process = re.search(r"start/running, process (\d+)", state)
    seconds = _age(int(process[1])) if process else stable
    return None if seconds >= stable else f"active for {seconds:.1f} s of {stable:g} s"


def _age(pid: int) -> float:
    """Return the seconds since a process began (proc(5), /proc/PID/stat, field 22); 0 when it has ended."""
    try:
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(began) / os.sysconf("SC_CLK_TCK")
