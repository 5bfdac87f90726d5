"""Execute other files of deploy code, for `pyinfra.local.include`; refuse pyinfra's command line.

pyinfra's own `include` imports `pyinfra_cli`, which patches this process: sockets, threads, children.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from pyinfra import config, host, local, state
from pyinfra.api.util import get_file_path


def install() -> None:
    """Replace pyinfra's `include`, and refuse `pyinfra_cli`. Call it before a role is imported."""
    local.include = include
    sys.meta_path.insert(0, _NoCommandLine())


def include(filename: str, data: dict[str, Any] | None = None) -> None:
    """Execute a file of deploy code; see pyinfra.local.include. Raises whatever its code raises."""
    path = Path(get_file_path(state, filename))
    root = Path(state.cwd or "/")
    name = path.relative_to(root) if path.is_relative_to(root) else path
    outer, settings = state.current_exec_filename, config.get_current_state()
    state.current_exec_filename = str(path)
    try:
        with host.deploy(str(name), None, data, in_deploy=False):
            exec(compile(path.read_text(), str(path), "exec"), {"__file__": str(path)})  # noqa: S102 - the ops repo's own code
    finally:
        state.current_exec_filename = outer
        config.set_current_state(settings)


class _NoCommandLine(MetaPathFinder):
    """Refuses to import `pyinfra_cli`."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> None:
        if fullname.partition(".")[0] == "pyinfra_cli":
            raise ImportError(f"{fullname} patches this process, so it is not imported. Use pyinfra.api")
