"""Our connector under pyinfra's own command.

`pyinfra @solo deploy.py` finds it by its entry point; `pyinfra_command` takes @local over with it.
There the host is pyinfra's own and gevent has patched the process. The host's facts are answered as
LocalHost's are, and each file is renamed into place at once.
"""

import logging
import re
from typing import Any

from pyinfra.api import Host, State

from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.native.registry import off_reason
from pyinfra_solo.system.text import printable

_STYLE = re.compile(r"(\x1b\[(?:0|1|3[0-7]|9[0-7])m)")
"""pyinfra's own colours. Code 8, which hides text, is none of them."""


def shown_by_pyinfra(record: logging.LogRecord) -> bool:
    """Make a record of pyinfra's log printable but for its colours: it holds output of commands."""
    parts = _STYLE.split(record.getMessage())
    record.msg = "".join(
        part if number % 2 else "\n".join(map(printable, part.split("\n")))
        for number, part in enumerate(parts)
    )
    record.args = ()
    return True


class SoloConnector(LocalConnector):
    """The connector `@solo`, registered under the entry points `pyinfra.connectors`."""

    name = "@solo"

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        logging.getLogger("pyinfra").addFilter(shown_by_pyinfra)
        by_shell = host.get_fact

        def get_fact(name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:
            return self.get_fact(by_shell, name_or_cls, *args, **kwargs)

        host.get_fact = get_fact  # type: ignore[method-assign]


def take_over(host: Host, *, native: bool, timeout: float) -> None:
    """Use our connector for `host`, which is this machine.

    timeout: seconds for a command without `_timeout`.
    """
    if not isinstance(host.connector, SoloConnector):
        host.connector = SoloConnector(host.state, host)
    host.connector.native, host.connector.timeout = native, timeout
    if native and (reason := off_reason()):
        logging.getLogger("pyinfra").warning(reason)
