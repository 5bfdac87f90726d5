"""Supervised services, declared once for every init system.

    shop = Service(name="shop", user="shop", command=["/srv/shop/current/.venv/bin/gunicorn", "shop:app"],
                   working_directory="/srv/shop/current", restart_on=["/srv/shop/current"])
    supervised(shop, name="the shop runs its current release")

A service is restarted when what it was started with is no longer what is on disk, be it changed by
this run or by one that was killed before it could restart anything.
"""

from collections.abc import Generator, Mapping, Sequence
from io import StringIO
from typing import Any, get_args

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.operation import OperationMeta
from pyinfra.operations import files

from pyinfra_solo.clients import service_log
from pyinfra_solo.errors import DataError
from pyinfra_solo.operations.script import Program, ProgramFact
from pyinfra_solo.operations.service import program, unit_files
from pyinfra_solo.operations.service.spec import Init, Permission, Service, folder

__all__ = ["Init", "Permission", "Service", "folder", "render", "running", "supervised"]

RECORDS = "/run/pyinfra-solo/loaded"
"""Folder of the services' records: digests of what each was started with. On tmpfs, as its processes
end with this boot."""
PROGRAM = Program(program, service_log)

Causes = Sequence[str | OperationMeta]
"""Paths and operations. A folder stands for all files in it."""


def render(service: Service, init: Init, *, run: str = "/run", log: str = "/var/log", self: str = "") -> str:
    """Render the unit, job or script that makes `init` keep the service running.

    run, log, self: the folders of pid and log files and the script's own path, for the LSB script.
    Raises DataError for a value that this init system has no way to write down.
    """
    return unit_files.render(
        service, init, run=run, log=log, self=self or unit_files.path(service.name, "sysv")
    )


class Baseline(ProgramFact[Init]):
    """The init system that runs the machine.

    Asking also notes what the service was started with, when nothing is noted since the boot: this fact
    is gathered before the run has changed anything.
    """

    program = PROGRAM
    verb = "baseline"

    @staticmethod
    def default() -> Init:
        """Assume systemd on a machine that is only planned."""
        return "systemd"


class ServiceState(ProgramFact[dict[str, Any]]):
    """init; enabled: true where that is not wanted, too; verb: none, start, restart or reload."""

    program = PROGRAM
    default = dict


@operation()
def _running(
    arguments: Mapping[str, Any], restart_on: Sequence[OperationMeta], reload_on: Sequence[OperationMeta]
) -> Generator[StringCommand, None, None]:
    force = "restart" if _has_changed(restart_on) else "reload" if _has_changed(reload_on) else "no"
    arguments = {**arguments, "force": force}
    state = host.get_fact(ServiceState, arguments=arguments)
    if state.get("enabled") and state.get("verb") == "none":
        host.noop(f"{arguments['name']} runs with what is on disk")
    else:
        yield PROGRAM.command("apply", arguments)


def _has_changed(operations: Sequence[OperationMeta]) -> bool:
    return any(op.did_change() if op.is_complete() else op.will_change for op in operations)


def running(
    service: str,
    *,
    name: str,
    restart_on: Causes = (),
    reload_on: Causes = (),
    enabled: bool = True,
    running: bool = True,
    **arguments: Any,
) -> Any:
    """Make the service `service` run, now and at every boot, with what is on disk.

    restart_on, reload_on: paths and operations whose change asks for a restart, or a reload.
    A systemd unit whose Condition declines it (timesyncd in a container) is right as it is.
    """
    restart_paths, restart_operations = _split(restart_on)
    reload_paths, reload_operations = _split(reload_on)
    wanted = _wanted(service, restart_paths, reload_paths, enabled=enabled, running=running)
    if restart_paths or reload_paths:
        host.get_fact(Baseline, arguments=wanted)
    return _running(
        name=name, arguments=wanted, restart_on=restart_operations, reload_on=reload_operations, **arguments
    )


def supervised(service: Service, *, name: str, restart_on: Causes = (), reload_on: Causes = ()) -> Any:
    """Make this machine's init system keep the service running, now and at every boot.

    It is restarted when its unit, its environment file or something of `restart_on` has changed, its
    own or the argument; and reloaded for `reload_on`. Raises DataError.
    """
    restart_paths, restart_operations = _split(restart_on)
    reload_paths, reload_operations = _split(reload_on)
    inits: tuple[Init, ...] = get_args(Init)
    units = [unit_files.path(service.name, init) for init in inits]
    environment = [service.environment_file] if service.environment_file else []
    wanted = _wanted(
        service.name,
        [*units, *service.restart_on, *environment, *restart_paths],
        [*service.reload_on, *reload_paths],
    )
    init: Init = host.get_fact(Baseline, arguments=wanted)
    unit = files.put(
        name=f"{init} knows the service {service.name}",
        src=StringIO(render(service, init)),
        dest=unit_files.path(service.name, init),
        mode="755" if init == "sysv" else "644",
    )
    return _running(
        name=name, arguments=wanted, restart_on=[unit, *restart_operations], reload_on=reload_operations
    )


def _split(causes: Causes) -> tuple[list[str], list[OperationMeta]]:
    """Separate paths from operations. Raises DataError for a path that is not in a list or not absolute."""
    if isinstance(causes, str):
        raise DataError(f"restart_on and reload_on take a list. Write [{causes!r}].")
    paths = [cause for cause in causes if isinstance(cause, str)]
    if wrong := next((path for path in paths if not path.startswith("/")), None):
        raise DataError(
            f"restart_on and reload_on take paths from the root. Write '/{wrong}', or correct it."
        )
    return paths, [cause for cause in causes if not isinstance(cause, str)]


def _wanted(
    service: str, restart: Sequence[str], reload: Sequence[str], *, enabled: bool = True, running: bool = True
) -> dict[str, Any]:
    """Make the program's arguments, with no `force` yet. Raises DataError."""
    return {
        "name": unit_files.checked_name(service),
        "records": RECORDS,
        "enabled": enabled,
        "running": running,
        "restart": list(restart),
        "reload": list(reload),
        "force": "no",
    }
