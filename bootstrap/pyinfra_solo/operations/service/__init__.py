"""An application's supervised service, declared once for every init system.

    shop = Service(name="shop", user="shop", command=["/srv/shop/current/.venv/bin/gunicorn", "shop:app"],
                   working_directory="/srv/shop/current", reads=["/srv/shop/current"])
    runs(shop, name="the shop runs its current release")

A service is restarted when what it has read is no longer what is on disk, be it changed by this run
or by one that was killed before it could restart anything.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Literal, get_args

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation
from pyinfra.operations import files

from pyinfra_solo.operations import native_facts as roles
from pyinfra_solo.operations import script
from pyinfra_solo.operations.service import unit_files

RECORDS = "/run/pyinfra-solo/loaded"
"""What each running service has read, as digests. On tmpfs: it speaks of processes of this boot."""

Init = Literal["systemd", "upstart", "sysv"]


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process that an init system keeps running.

    command: program and arguments, the program by its full path. group: the user's, when empty.
    environment: values that anyone may see; secrets go into environment_file, lines of KEY=VALUE.
    notifies: the program says when it is ready (sd_notify(3)); only systemd listens.
    start_timeout, stop_timeout, restart_delay: seconds. reload_signal: a name as in kill(1), such
    as HUP; none: a reload is a restart. open_files: a limit; memory_mib: one too, 0 for none, under
    systemd only, as are the restrictions that `hardened` stands for.
    reads: paths whose change asks for a restart. rereads: paths for which a reload is enough.
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
    hardened: bool = True
    reads: Sequence[str] = ()
    rereads: Sequence[str] = ()


def render(service: Service, init: Init, *, run: str = "/run", log: str = "/var/log", self: str = "") -> str:
    """The unit, job or script that makes `init` keep the service running.

    run, log, self: the folders of pid and log files and the script's own path, for the LSB script.
    Raises DataError for a value that this init system has no way to write down.
    """
    return unit_files.render(
        service, init, run=run, log=log, self=self or unit_files.path(service.name, "sysv")
    )


class Baseline(FactBase[str]):
    """The init system that runs the machine.

    Asking also notes what the service has read, when nothing is noted since the boot: this fact is
    gathered before the run has changed anything, so what is on disk is what the service has read.
    """

    native = staticmethod(roles.baseline)

    def command(self, words: Sequence[str]) -> StringCommand:
        return script.run("service", "baseline", *words)

    def process(self, output: list[str]) -> str:
        return script.pairs(output)["init"]

    @staticmethod
    def default() -> str:
        """A machine that is only planned has no init system yet: it will have systemd."""
        return "systemd"


class ServiceState(FactBase[dict[str, str]]):
    """init; enabled: yes or no; verb: none, start, restart or reload, what the service needs."""

    default = dict

    native = staticmethod(roles.service_state)

    def command(self, words: Sequence[str]) -> StringCommand:
        return script.run("service", "look", *words)

    def process(self, output: list[str]) -> dict[str, str]:
        return script.pairs(output)


@operation()
def _up(
    words: Sequence[str], changed: Sequence[Any], reload_on: Sequence[Any]
) -> Generator[StringCommand, None, None]:
    force = "restart" if _fired(changed) else "reload" if _fired(reload_on) else "no"
    words = [*words[:4], force, *words[4:]]
    state = host.get_fact(ServiceState, words=words)
    if state.get("enabled") == "yes" and state.get("verb") == "none":
        host.noop(f"{words[0]} is up and has read what is on disk")
    else:
        yield script.run("service", "apply", *words)


def _fired(operations: Sequence[Any]) -> bool:
    return any(op.did_change() if op.is_complete() else op.will_change for op in operations)


def up(
    service: str,
    *,
    name: str,
    reads: Sequence[str] = (),
    rereads: Sequence[str] = (),
    changed: Sequence[Any] = (),
    reload_on: Sequence[Any] = (),
    enabled: bool = True,
    running: bool = True,
    **arguments: Any,
) -> Any:
    """The service `service` runs, now and at every boot, and has read what is on disk.

    reads, rereads: paths whose change asks for a restart, or a reload. A folder stands for all
    files in it. changed, reload_on: operations whose change asks for the same.
    A systemd unit whose Condition declines it (timesyncd in a container) is right as it is.
    """
    words = _words(service, reads, rereads, enabled=enabled, running=running)
    if reads or rereads:
        _baseline(words)
    return _up(name=name, words=words, changed=changed, reload_on=reload_on, **arguments)


def runs(service: Service, *, name: str, changed: Sequence[Any] = (), reload_on: Sequence[Any] = ()) -> Any:
    """The service is kept running by this machine's init system, now and at every boot.

    It is restarted when its unit, its environment file, one of its `reads` or an operation of
    `changed` has changed, and reloaded for `rereads` and `reload_on`.
    """
    inits: tuple[Init, ...] = get_args(Init)
    reads = [*(unit_files.path(service.name, init) for init in inits), *service.reads]
    if service.environment_file:
        reads.append(service.environment_file)
    words = _words(service.name, reads, service.rereads)
    init = _baseline(words)
    unit = files.put(
        name=f"{init} knows the service {service.name}",
        src=StringIO(render(service, init)),
        dest=unit_files.path(service.name, init),
        mode="755" if init == "sysv" else "644",
    )
    return _up(name=name, words=words, changed=[unit, *changed], reload_on=reload_on)


def _baseline(words: Sequence[str]) -> Any:
    return host.get_fact(Baseline, words=[*words[:4], "no", *words[4:]])


def _words(
    service: str, reads: Sequence[str], rereads: Sequence[str], *, enabled: bool = True, running: bool = True
) -> list[str]:
    """Arguments of scripts/service.sh, all but FORCE, which is known later."""
    flags = ["yes" if flag else "no" for flag in (enabled, running)]
    paths = [f"restart={path}" for path in reads] + [f"reload={path}" for path in rereads]
    return [unit_files.checked_name(service), RECORDS, *flags, *paths]
