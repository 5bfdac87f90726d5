"""Run a function of a test module in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
"""Not from `tests.support.machine`: that imports pyinfra."""

_LAZILY = """
from pyinfra_solo.executor import lazy_pyinfra
assert lazy_pyinfra.import_pyinfra()
from pyinfra_solo.executor import pyinfra_speed
pyinfra_speed.start()
"""
_CALL = """
import importlib, json, sys
print("\\n" + json.dumps(getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*sys.argv[3:])))
"""


def run_apart(
    function: Callable[..., Any], *words: str | Path, own_mounts: bool = False, lazily: bool = False
) -> Any:
    """Return the JSON value that `function`, of a module, returns for `words`.

    own_mounts: in a mount namespace of its own. lazily: pyinfra is imported as a converge imports it.
    """
    done = subprocess.run(
        [*(["unshare", "--mount"] if own_mounts else []), sys.executable, "-c", _LAZILY * lazily + _CALL,
         function.__module__, function.__name__, *words],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}/bootstrap:{REPOSITORY}"}, cwd=REPOSITORY,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def mount_over(path: str, beside: Path) -> None:
    """Bind `beside` over `path`, in this process's own mount namespace."""
    subprocess.run(["mount", "--bind", beside, path], check=True)
