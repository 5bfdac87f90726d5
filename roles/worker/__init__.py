"""worker: the app's background process: a release and a service, without a port."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from pyinfra_solo.checks import Check, unit
from pyinfra_solo.operations import service
from pyinfra_solo.operations.service import Service
from pyinfra_solo.role import role
from roles.app import App, Positive, deployed


@dataclass(frozen=True, kw_only=True)
class Worker(App):
    """worker_command: what the release's python runs, from the release's folder.
    worker_stop_timeout: seconds for the job at hand. worker_stable: seconds without a restart, after
    which the worker is well.
    """

    worker_command: Sequence[str] = ("worker.py",)
    worker_stop_timeout: Positive = 60
    worker_stable: Annotated[float, msgspec.Meta(ge=0)] = 3.0


def unit_name(data: Worker) -> str:
    """Name the service: a machine may be web and worker of one app."""
    return f"{data.app_name}-worker"


def healthy(data: Worker) -> Sequence[Check]:
    """Check that the worker has run for a while without a restart."""
    return (unit(unit_name(data), stable=data.worker_stable),)


def process(data: Worker) -> Service:
    """Declare one process."""
    current = data.app_current
    return Service(
        name=unit_name(data),
        description=f"{data.app_name}, at work in the background",
        command=[f"{current}/.venv/bin/python", "-u", *data.worker_command],
        user=data.app_name,
        working_directory=current,
        environment=data.app_environment,
        environment_file=data.app_environment_file,
        writable=data.app_writes,
        allow=data.app_allow,
        stop_timeout=data.worker_stop_timeout,
        restart_on=[current],
    )


@role(data=Worker, needs=["base"], healthy=healthy)
def worker(data: Worker) -> None:
    release = deployed(data)
    service.supervised(process(data), name=f"{data.app_name} works in the background", restart_on=[release])
