"""worker: the app's background process: a release and a service, without a port."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.checks import Check, unit
from pyinfra_solo.operations import accounts
from pyinfra_solo.operations import release as app
from pyinfra_solo.operations.service import Service, runs
from pyinfra_solo.role import role


@dataclass(frozen=True, kw_only=True)
class Worker:
    """worker_command: what the release's python runs, from the release's folder. worker_stable:
    seconds that it must have been up to be called well. The app_ values are those of the role web.
    """

    app_name: str = "shop"
    app_repo: str
    app_ref: str = "main"
    app_keep: Annotated[int, msgspec.Meta(ge=1)] = 3
    app_deploy_key: str | None = None
    app_known_hosts: str | None = None
    app_python: str = "/usr/bin/python3"
    app_environment: Mapping[str, str] = field(default_factory=dict)
    app_environment_file: str = ""
    worker_command: Sequence[str] = ("worker.py",)
    worker_stop_timeout: Annotated[int, msgspec.Meta(ge=1)] = 60
    worker_stable: Annotated[float, msgspec.Meta(ge=0)] = 3.0


def unit_name(data: Worker) -> str:
    """A machine may be web and worker of one app: two services."""
    return f"{data.app_name}-worker"


def healthy(data: Worker) -> Sequence[Check]:
    """The worker has been up for a while without a restart."""
    return (unit(unit_name(data), stable=data.worker_stable),)


def process(data: Worker) -> Service:
    """One process; a job at hand has worker_stop_timeout seconds to end."""
    current = f"{paths.APPS}/{data.app_name}/current"
    return Service(
        name=unit_name(data),
        description=f"{data.app_name}, at work in the background",
        command=[f"{current}/.venv/bin/python", "-u", *data.worker_command],
        user=data.app_name,
        working_directory=current,
        environment=data.app_environment,
        environment_file=data.app_environment_file,
        stop_timeout=data.worker_stop_timeout,
        reads=[current],
    )


@role(data=Worker, needs=["base"], healthy=healthy)
def worker(data: Worker) -> None:
    accounts.system(data.app_name, name=f"{data.app_name} has an account of its own")
    release = app.release(
        name=f"{data.app_name} is at its release",
        app=data.app_name,
        repo=data.app_repo,
        ref=data.app_ref,
        keep=data.app_keep,
        deploy_key=data.app_deploy_key,
        known_hosts=data.app_known_hosts,
        python=data.app_python,
        user=data.app_name,
        root=str(paths.APPS),
    )
    runs(process(data), name=f"{data.app_name} works in the background", changed=[release])
