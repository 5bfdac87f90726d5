"""A worker: one line a second, and an orderly end on SIGTERM."""

import signal
import sys
import threading
from pathlib import Path

RELEASE = Path(__file__).resolve().parent.name


def main() -> int:
    """Exit status 0 after SIGTERM, the job at hand done."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    jobs = 0
    while not told.wait(1):
        jobs += 1
        sys.stdout.write(f"{RELEASE}: job {jobs} done\n")
        sys.stdout.flush()
    sys.stdout.write(f"{RELEASE}: told to end after {jobs} jobs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
