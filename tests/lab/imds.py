"""The metadata service in the lab, which can also be out of reach."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.network import Network
from tests.support.imds import IMDS, MetadataService


class Imds(MetadataService):
    """The service of one lab. Machines are distinguished by their address."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.bridge = network
        self._restore: Callable[[], None] | None = None

    def unreachable(self, on: bool = True) -> None:
        """Drop packets to the service; with `on` false, deliver them again."""
        if on and self._restore is None:
            self._restore = self.bridge.withhold(IMDS)
        elif not on and self._restore is not None:
            self._restore()
            self._restore = None

    def heal(self) -> None:
        """Undo every fault."""
        super().heal()
        self.unreachable(False)
