"""Ask systemd: whether it runs this machine, and the properties of its units and of its manager."""

from collections.abc import Sequence
from pathlib import Path

from pyinfra_solo.system import processes


def is_running(root: Path = Path("/")) -> bool:
    """Check that systemd runs the machine below `root`, as sd_booted(3) does."""
    return (root / "run/systemd/system").is_dir()


def show(units: Sequence[str], properties: Sequence[str], timeout: float) -> list[dict[str, str]]:
    """Return the properties of each unit in `units`, or of systemd's manager when there is none.

    A unit may be a pattern, such as `*`. A unit that does not exist has properties, too: its
    LoadState is `not-found`. Returns [] when systemctl(1) fails. Raises OSError when it cannot be
    started, and TimeoutError, which is an OSError, when it does not answer in `timeout` seconds.
    """
    words = ["systemctl", "show", "--no-pager", f"--property={','.join(properties)}", "--", *units]
    try:
        done = processes.run(words, timeout=timeout)
    except TimeoutError as error:
        raise TimeoutError(f"systemctl did not answer in {timeout:g} s") from error
    return parse(done.stdout.decode(errors="replace")) if done.status == 0 else []


def parse(shown: str) -> list[dict[str, str]]:
    """Parse what `systemctl show` prints: a `Name=value` a line, and an empty line between units."""
    blocks = (block.splitlines() for block in shown.split("\n\n") if block.strip())
    return [dict(line.split("=", 1) for line in block if "=" in line) for block in blocks]
