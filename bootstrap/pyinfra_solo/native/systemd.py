"""Facts of pyinfra.facts.systemd: systemctl(1) itself, without the shells around it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native import programs as child
from pyinfra_solo.native.files import lines_of
from pyinfra_solo.native.server import found


def _shown(
    key: str,
    *,
    user_mode: bool = False,
    machine: str | None = None,
    user_name: str | None = None,
    services: Any = None,
) -> Any:
    """Lines of `systemctl show`; of a failure the ordinary road tells what there is to tell."""
    program = found("systemctl")
    if user_mode or machine is not None or user_name is not None or program is None:
        return UNKNOWN
    names = ["*"] if services is None else [services] if isinstance(services, str) else services
    # What can be read once only is left to the ordinary road.
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return UNKNOWN
    return lines_of(child.said([program, "show", "--all", "--property", "Id", "--property", key, *names]))


LINES: dict[str, Callable[..., Any]] = {
    "SystemdStatus": partial(_shown, "SubState"),
    "SystemdEnabled": partial(_shown, "UnitFileState"),
}
"""Fact -> what gives its command's output, with the arguments of the fact's own `command`."""
