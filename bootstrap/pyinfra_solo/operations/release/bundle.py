"""Send the program of `release` to a machine as source: it needs python3 and git there, and no engine."""

import base64
import json
import zlib
from functools import cache
from pathlib import Path

from pyinfra_solo.operations.script import ProgramCommand

_PACKAGE = Path(__file__).parents[2]
_PACKAGES = ("", "clients", "operations", "operations.release", "system")
MODULES = (
    "errors", "paths", "system.text", "system.deadline", "system.lock", "system.processes", "system.metadata",
    "system.durable", "system.kept", "clients.git_env", "clients.git_core", "clients.uv",
    *(f"operations.release.{name}" for name in (
        "request", "git_runner", "releases", "check", "size", "takeover", "namespace", "environment", "make", "program",
    )),
)  # fmt: skip
"""Each needs only those before it, and the standard library."""

_LOAD = """\
import base64, json, sys, types, zlib
for name, text in json.loads(zlib.decompress(base64.b64decode("{source}"))):
    module = sys.modules[name] = types.ModuleType(name)
    if text is None:
        module.__path__ = []
    else:
        exec(compile(text, name, "exec"), module.__dict__)
sys.exit(module.main(*sys.argv[1:]))"""

_FIND = """\
# Amazon Linux 2023 keeps Python 3.9 as its python3.
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec "$python" -I -c '{load}' "$@"
done
echo "release: this machine has no Python 3.11 or later. Install one." >&2
exit 1"""


@cache
def source() -> str:
    """Return the program as one Python text, whose arguments are a mode and a request."""
    modules: list[tuple[str, str | None]] = [(_full(name), None) for name in _PACKAGES]
    modules += [(_full(name), (_PACKAGE / f"{name.replace('.', '/')}.py").read_text()) for name in MODULES]
    packed = base64.b64encode(zlib.compress(json.dumps(modules).encode(), 9)).decode()
    return _LOAD.format(source=packed)


def _full(name: str) -> str:
    return f"pyinfra_solo.{name}".rstrip(".")


def command(mode: str, request: str) -> ProgramCommand:
    """Make the command that runs the program. mode: check or apply. request: JSON; it shows in `ps`."""
    text = _FIND.format(load=source())
    return ProgramCommand(("sh", "-c"), text, "release", mode, request)
