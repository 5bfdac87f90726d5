"""base, for every machine: the right time, logs of bounded size, an account to log in with, and a
package manager that nothing else uses while the machine converges.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Annotated, Literal

import msgspec
from pyinfra import host
from pyinfra.facts.files import Directory
from pyinfra.operations import files, systemd
from pyinfra.operations.util import any_changed

from pyinfra_solo.operations import accounts, packages, service
from pyinfra_solo.role import role

JOURNALD = "/etc/systemd/journald.conf.d/50-pyinfra-solo.conf"


@dataclass(frozen=True, kw_only=True)
class Base:
    """journal_mib: the most that logs may take on disk. deploy_keys: lines of authorized_keys;
    exactly these keys may log in. time_sync: the daemon that keeps the clock, under systemd.
    automatic_upgrades: unattended-upgrades may run when the machine has converged; under systemd it is
    installed for that.
    """

    time_sync: Literal["systemd-timesyncd", "chrony"] = "systemd-timesyncd"
    journal_mib: Annotated[int, msgspec.Meta(ge=16)] = 512
    automatic_upgrades: bool = True
    deploy_user: str = "deploy"
    deploy_keys: Sequence[str] = field(default=())
    deploy_groups: Sequence[str] = field(default=())
    deploy_shell: str = "/bin/bash"


@role(data=Base)
def base(data: Base) -> None:
    files.template(
        name="apt waits for its lock, and upgrades wait for us",
        src="roles/base/templates/apt.conf.j2",
        dest="/etc/apt/apt.conf.d/95pyinfra-solo",
        mode="644",
        upgrades=int(data.automatic_upgrades),
        lock_timeout=packages.LOCK_TIMEOUT,
    )
    accounts.person(
        data.deploy_user,
        name=f"{data.deploy_user} can log in, with our keys only",
        keys=data.deploy_keys,
        groups=data.deploy_groups,
        shell=data.deploy_shell,
    )
    if host.get_fact(Directory, path="/run/systemd/system"):
        _under_systemd(data)


def _under_systemd(data: Base) -> None:
    upgrading = ["unattended-upgrades"] if data.automatic_upgrades else []
    wanted = [data.time_sync, *upgrading]
    packages.installed(
        name=f"{' and '.join(wanted)} {'are' if upgrading else 'is'} installed", packages=wanted
    )
    journal = files.put(
        name=f"the journal takes {data.journal_mib} MiB at most",
        src=StringIO(f"[Journal]\nSystemMaxUse={data.journal_mib}M\n"),
        dest=JOURNALD,
        mode="644",
    )
    timers = files.put(
        name="no missed upgrade is made up for at boot",
        src="roles/base/files/apt-timer.conf",
        dest="/etc/systemd/system/apt-.timer.d/50-pyinfra-solo.conf",
        mode="644",
    )
    upgrades = files.put(
        name="no upgrade starts while the machine converges",
        src="roles/base/files/apt-service.conf",
        dest="/etc/systemd/system/apt-.service.d/50-pyinfra-solo.conf",
        mode="644",
    )
    systemd.daemon_reload(name="systemd has read when upgrades start", _if=any_changed(timers, upgrades))
    systemd.service(
        name="the journal keeps to its size",
        service="systemd-journald",
        restarted=True,
        _if=journal.did_change,
    )
    service.running(data.time_sync, name="the clock is kept right")
