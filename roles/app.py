"""What the roles of one application share: its values, its account and its release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from pyinfra.api.operation import OperationMeta

from pyinfra_solo import paths
from pyinfra_solo.operations import accounts
from pyinfra_solo.operations.release import release
from pyinfra_solo.operations.service import Permission

Positive = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, kw_only=True)
class App:
    """The values of an application; its account has its name.

    app_repo, app_ref, app_keep, app_deploy_key, app_known_hosts, app_python: what `release` takes.
    app_environment: values that anyone may see; app_environment_file: lines of KEY=VALUE.
    app_writable, app_allow: paths that its processes may write beside its folder `shared`, and their
    further rights, such as "metadata" to take credentials from the metadata service (`Service`).
    """

    app_name: str = "shop"
    app_repo: str
    app_ref: str = "main"
    app_keep: Positive = 3
    app_deploy_key: str | None = None
    app_known_hosts: str | None = None
    app_python: str = "/usr/bin/python3"
    app_environment: Mapping[str, str] = field(default_factory=dict)
    app_environment_file: str = ""
    app_writable: Sequence[str] = ()
    app_allow: Sequence[Permission] = ()

    @property
    def app_current(self) -> str:
        """The link that names the current release."""
        return f"{paths.APPS}/{self.app_name}/current"

    @property
    def app_writes(self) -> list[str]:
        """All paths that its processes may write."""
        return [f"{paths.APPS}/{self.app_name}/shared", *self.app_writable]


def deployed(data: App) -> OperationMeta:
    """Make the account and the current release; the operation that changes the release."""
    accounts.system(data.app_name, name=f"{data.app_name} has an account of its own")
    operation: OperationMeta = release(
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
    return operation
