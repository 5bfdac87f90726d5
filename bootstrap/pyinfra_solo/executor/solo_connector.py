"""Our connector under pyinfra's own command: `pyinfra @solo deploy.py`, and @local where by_hand takes over.

There the host is pyinfra's own and the process is patched by gevent; the facts of this one host are
answered as those of `host.LocalHost` are, and a file is in its place when its command ends.
"""

from collections.abc import Iterator
from typing import Any

from pyinfra.api import Host, State

from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.native import UNKNOWN

NAME = "@solo"


class SoloConnector(LocalConnector):
    """The connector `@solo`, registered under the entry points `pyinfra.connectors`."""

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        stock = host.get_fact

        def get_fact(name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:
            value = self.answer(name_or_cls, args, kwargs)
            return stock(name_or_cls, *args, **kwargs) if value is UNKNOWN else value

        host.get_fact = get_fact  # type: ignore[method-assign]

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[Any, Any], list[str]]]:  # noqa: ARG004
        yield NAME, {}, [NAME]


def take_over(host: Host, *, native: bool, seconds: float) -> None:
    """From here on `host`, which is this machine, is asked and changed through our connector. seconds: for
    a command that has no `_timeout`."""
    if not isinstance(host.connector, SoloConnector):
        host.connector = SoloConnector(host.state, host)
    host.connector.native, host.connector.seconds = native, seconds
