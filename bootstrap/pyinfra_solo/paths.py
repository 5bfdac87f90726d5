"""Where things are on a machine. `PYINFRA_SOLO_ROOT` puts all of it below another folder, for tests."""

import os
from pathlib import Path

ROOT = Path(os.environ.get("PYINFRA_SOLO_ROOT") or "/")

CONFIG = ROOT / "etc/pyinfra-solo/config.toml"
BAKED = ROOT / "opt/pyinfra-solo"
"""What the image brings: engine/, runtimes/<key>/, runtime (a link), wheels/, uv/, bin/."""
STATE = ROOT / "var/lib/pyinfra-solo"
"""What boots leave for each other: repo.git, checkouts/<sha>, runtimes/<key>, reports, last-run.json."""
RUN = ROOT / "run/pyinfra-solo"
"""On tmpfs: gone with the power, and in no image."""
GATE = RUN / "gate"
"""The only folder that a web server serves; its one file is ping.html."""
APPS = ROOT / "srv"

OPS_MARKER = "ops.toml"
"""The file of an ops repo that holds its name. Keys but `name` are for later engines."""
