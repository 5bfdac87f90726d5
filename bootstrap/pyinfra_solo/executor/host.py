"""This machine as pyinfra's one host: an inventory and a host of our own, whose facts are native.

Through pyinfra's API, never `pyinfra_cli`, which patches the process.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.arguments import all_argument_meta, default_sentinel
from pyinfra.api.host import HostData

from pyinfra_solo.executor.connector import NAME, LocalConnector
from pyinfra_solo.executor.lazy_pyinfra import cache_signatures
from pyinfra_solo.native import UNKNOWN


class _OperationOrder(list[str]):
    """The operations' names, in order. pyinfra asks of each new one whether it is there already, which a
    list of 10,000 answers in a second."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__(names)
        self._known = set(self)

    def append(self, name: str) -> None:
        super().append(name)
        self._known.add(name)
        if len(self) == _MANY:
            cache_signatures()

    def __contains__(self, name: object) -> bool:
        return name in self._known


_MANY = 64
"""Operations, from which on it is worth a look at all that pyinfra has."""


class _CachedHostData(HostData):
    """A host's data, which pyinfra asks 32 times for each operation whether it holds a global argument
    such as `_sudo`. Until it does, the answer lies where Python looks first."""

    def __init__(self, host: Host, *datas: Any) -> None:
        super().__init__(host, *datas)
        present = self.dict()  # type: ignore[no-untyped-call]
        self.__dict__.update({key: default_sentinel for key in all_argument_meta if key not in present})

    def __setattr__(self, key: str, value: Any) -> None:
        self.forget([key])
        super().__setattr__(key, value)

    def forget(self, keys: Iterable[str]) -> None:
        """From now on these are looked for."""
        for key in keys:
            if key in all_argument_meta:
                self.__dict__.pop(key, None)


class LocalHost(Host):
    """Facts that are looks at the machine are answered in the process."""

    connector: LocalConnector
    data: _CachedHostData

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.op_hash_order = _OperationOrder()
        self.data = _CachedHostData(self, *self.data.datas[1:])

    def deploy(self, name: str, kwargs: Any, data: Any, in_deploy: bool = True) -> Any:
        """See pyinfra.api.Host.deploy; `data` is a layer of the host's data meanwhile."""
        self.data.forget(data or ())
        return super().deploy(name, kwargs, data, in_deploy)

    def get_fact(self, name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:
        """See pyinfra.api.Host.get_fact."""
        value = self.connector.answer(name_or_cls, args, kwargs)
        return self._asked(name_or_cls, *args, **kwargs) if value is UNKNOWN else value

    def _asked(self, fact: Any, *args: Any, **kwargs: Any) -> Any:
        """By a shell; what waits is the fact, and not its command."""
        connector = self.connector
        before, connector.waited = connector.waited, _as_fact(fact, connector.waited)
        connector.asking = True
        try:
            return super().get_fact(fact, *args, **kwargs)
        finally:
            connector.waited, connector.asking = before, False


def _as_fact(fact: type, waited: Callable[[str, float], None]) -> Callable[[str, float], None]:
    return lambda _what, seconds: waited(f"fact {fact.__name__}", seconds)


class LocalInventory(Inventory):
    """An inventory of this machine alone. pyinfra's own loads every connector twice, ssh's among
    them, which is most of its start-up time."""

    def __init__(self, data: Mapping[str, Any], host: type[Host] = LocalHost) -> None:
        self._host_class = host
        super().__init__(([NAME], {}), override_data=dict(data))  # type: ignore[no-untyped-call]

    def make_hosts_and_groups(self, names: Any, groups: Any) -> None:  # noqa: ARG002
        host = self._host_class(NAME, inventory=self, groups=[NAME], connector_cls=LocalConnector)
        self.host_data[NAME] = {}
        self.hosts = {NAME: host}
        self.groups[NAME].append(host)


def local_state(
    root: Path, data: Mapping[str, Any], host: type[Host] = LocalHost, *, native: bool = True
) -> State:
    """A pyinfra State of this machine, nothing evaluated twice (`check_for_changes=False` is what
    `pyinfra -y` does); file names are relative to `root`."""
    state = State(LocalInventory(data, host), Config(), check_for_changes=False)
    state.cwd = str(root)
    for one in state.inventory:
        one.connected = True
        cast("LocalConnector", one.connector).native = native
        state.activate_host(one)
    return state
