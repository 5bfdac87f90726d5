"""Answer facts of pyinfra.facts.systemd by systemctl(1), without the shells around it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyinfra_solo.native import UNKNOWN, programs
from pyinfra_solo.native.files import lines_of
from pyinfra_solo.native.server import find_program


def _show(
    key: str,
    *,
    user_mode: bool = False,
    machine: str | None = None,
    user_name: str | None = None,
    services: Any = None,
) -> Any:
    program = find_program("systemctl")
    if user_mode or machine is not None or user_name is not None or program is None:
        return UNKNOWN
    names = ["*"] if services is None else [services] if isinstance(services, str) else services
    # An iterator can be read once only, and pyinfra's own fact would read it after us.
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return UNKNOWN
    return lines_of(
        programs.stdout_of([program, "show", "--all", "--property", "Id", "--property", key, *names])
    )


COMMAND_OUTPUT: dict[str, Callable[..., Any]] = {
    "SystemdStatus": partial(_show, "SubState"),
    "SystemdEnabled": partial(_show, "UnitFileState"),
}
"""Fact -> function of the arguments of its `command` that returns the command's output lines."""
