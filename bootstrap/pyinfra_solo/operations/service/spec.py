"""A service, as a role declares it for every init system."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Init = Literal["systemd", "upstart", "sysv"]
Permission = Literal[
    "metadata",
    "low-ports",
    "devices",
    "home",
    "processes",
    "namespaces",
    "address-families",
    "system-calls",
    "everything",
]
"""A right that a service does not have by itself."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process that an init system keeps running.

    command: program and arguments, the program by its full path. group: the user's, when empty.
    environment: values that anyone may see; secrets go into environment_file, lines of KEY=VALUE.
    notifies: the program says when it is ready (sd_notify(3)); only systemd waits for that.
    start_timeout, stop_timeout, restart_delay: seconds. reload_signal: a name as in kill(1), such
    as HUP; none: a reload is a restart. open_files: a limit; memory_mib: one too, 0 for none, under
    systemd only, as are the restrictions that `hardened` stands for.
    has_folder: it may write to `folder(name)`, which is there while it runs, and where no other account can write.
    restart_on, reload_on: paths whose change asks for a restart, or a reload.
    """

    name: str
    command: Sequence[str]
    user: str
    description: str = ""
    group: str = ""
    working_directory: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_file: str = ""
    notifies: bool = False
    start_timeout: int = 60
    stop_timeout: int = 30
    restart_delay: int = 1
    reload_signal: str = ""
    open_files: int = 65536
    memory_mib: int = 0
    has_folder: bool = False
    writable: Sequence[str] = ()
    allow: Sequence[Permission] = ()
    restart_on: Sequence[str] = ()
    reload_on: Sequence[str] = ()


def folder(name: str) -> str:
    """Return the folder of a service below /run; the prefix keeps it apart from folders of the system."""
    return f"/run/service-{name}"
