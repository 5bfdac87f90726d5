"""This machine as pyinfra's one host: an inventory and a host of our own, with native facts.

Through pyinfra's API, never `pyinfra_cli`, which patches the process.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.arguments import all_argument_meta

from pyinfra_solo.executor import pyinfra_speed
from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.ops_repo.bind import BoundRole


class LocalHost(Host):
    """Answers facts in this process where `native` can."""

    connector: LocalConnector

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pyinfra_speed.speed_up(self)

    def deploy(self, name: str, kwargs: Any, data: Any, in_deploy: bool = True) -> Any:
        """Open a deploy, whose `data` is a layer of the host's; see pyinfra.api.Host.deploy."""
        pyinfra_speed.add_names(self.data, data or ())
        return super().deploy(name, kwargs, data, in_deploy)

    def get_fact(self, name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:
        """Return a fact's value; see pyinfra.api.Host.get_fact."""
        return self.connector.get_fact(super().get_fact, name_or_cls, *args, **kwargs)


class LocalInventory(Inventory):
    """Holds this machine alone.

    pyinfra's own inventory loads every connector twice, ssh's among them: most of its start-up time.
    """

    def __init__(self, data: Mapping[str, Any], host: type[Host] = LocalHost) -> None:
        self._host_class = host
        super().__init__(([LocalConnector.name], {}), override_data=dict(data))  # type: ignore[no-untyped-call]

    def make_hosts_and_groups(self, names: Any, groups: Any) -> None:  # noqa: ARG002
        name = LocalConnector.name
        host = self._host_class(name, inventory=self, groups=[name], connector_cls=LocalConnector)
        self.host_data[name] = {}
        self.hosts = {name: host}
        self.groups[name].append(host)


def host_data(bound: Sequence[BoundRole]) -> dict[str, Any]:
    """Return `host.data`: the values that group data and flags give to the machine's roles.

    A value called `name` is left out: pyinfra would call each operation so.
    """
    return {key: value for one in bound for key, value in one.given.items() if key not in all_argument_meta}


def local_state(
    root: Path, data: Mapping[str, Any], host: type[Host] = LocalHost, *, native: bool = True
) -> State:
    """Return a pyinfra State of this machine; file names are relative to `root`.

    Operations are not evaluated twice: `check_for_changes=False`, as with `pyinfra -y`.
    """
    state = State(LocalInventory(data, host), Config(), check_for_changes=False)
    state.cwd = str(root)
    for one in state.inventory:
        one.connected = True
        cast("LocalConnector", one.connector).native = native
        state.activate_host(one)
    return state
