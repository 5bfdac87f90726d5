"""Execute another file of deploy code, for `pyinfra.local.include`.

pyinfra's own needs the modules of its command line, which patch this process when they are imported.
"""

from pathlib import Path
from typing import Any

from pyinfra import config, host, local, state
from pyinfra.api.util import get_file_path


def install() -> None:
    """Put `include` in the place of pyinfra's. Call it before a role is imported."""
    local.include = include


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
