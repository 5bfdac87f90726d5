"""Compute once what pyinfra 3.10 computes for each operation.

That is half the time of 1,000 operations that change nothing. Nothing here changes a result.
PYINFRA_SOLO_PLAIN=1 in the environment of the converge's process turns all of it off: with native off
too, that tells a fault of pyinfra from one of ours. Delete a part once pyinfra does it itself.
"""

import gc
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from types import FunctionType, UnionType
from typing import Any, NewType, Union, cast, get_args, get_origin, get_type_hints

from pyinfra.api import Host
from pyinfra.api.arguments import AllArguments
from pyinfra.api.host import HostData

ENABLED = os.environ.get("PYINFRA_SOLO_PLAIN") != "1"


def start() -> None:
    """Prepare this process, once pyinfra is imported."""
    if ENABLED:
        gc.freeze()  # what is imported by now is never garbage
        gc.set_threshold(50_000, 20, 100)
        with suppress(Exception):  # another pyinfra has other arguments: then it is only slower
            cache_annotations()


def speed_up(host: Host) -> None:
    """Give the host an order of operations and data that are fast to ask."""
    if ENABLED:
        host.op_hash_order = _OperationOrder()
        host.data = cast("HostData", _FastHostData(host, *host.data.datas[1:]))


def add_names(data: Any, names: Iterable[str]) -> None:
    """Note that the host's data may have these names from now on."""
    if isinstance(data, _FastHostData):
        data.add_names(names)


def check_type(value: Any, expected: Any, *args: Any, **kwargs: Any) -> Any:
    """Check a global argument's type. typeguard.check_type is imported for unusual values only."""
    if ENABLED and _matches(value, expected):
        return value
    return import_module("typeguard").check_type(value, expected, *args, **kwargs)


def _matches(value: Any, expected: Any) -> bool:
    """Tell whether `value` is certainly of the type, among those that pyinfra's global arguments have."""
    expected = getattr(expected, "__supertype__", expected)
    origin, inner = get_origin(expected), get_args(expected)
    if origin in (Union, UnionType):
        return any(_matches(value, one) for one in inner)
    if origin in (list, Iterable):
        return type(value) is list and all(_matches(one, inner[0]) for one in value)
    if origin is Mapping:
        return type(value) is dict and all(
            _matches(key, inner[0]) and _matches(one, inner[1]) for key, one in value.items()
        )
    if origin is Callable and inner[0] == []:
        function = getattr(value, "__func__", value)
        code = getattr(function, "__code__", None)
        return code is not None and code.co_argcount == (function is not value) and not code.co_kwonlyargcount
    return type(value) is expected


def cache_annotations() -> None:
    """Evaluate the string annotations of AllArguments: pyinfra calls get_type_hints for each operation.

    Unions become a NewType, which typeguard does not take apart each time.
    """
    hints = get_type_hints(AllArguments)
    AllArguments.__annotations__.update(
        {name: hint if isinstance(hint, type) else NewType(name, hint) for name, hint in hints.items()}
    )


def cache_signatures() -> None:
    """Store the signature of each operation, where inspect.signature reads it at each call (PEP 362)."""
    for module in [one for name, one in sys.modules.items() if name.startswith("pyinfra.operations.")]:
        for value in vars(module).values():
            function = getattr(value, "_inner", None)
            if isinstance(function, FunctionType) and not hasattr(function, "__signature__"):
                function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]


class _OperationOrder(list[str]):
    """Hashes of the operations in order, with a set: pyinfra searches the list for each new one.

    It also caches signatures once there are operations enough to pay for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: set[str] = set()

    def append(self, operation: str) -> None:
        super().append(operation)
        self._known.add(operation)
        if len(self) == _MANY:
            cache_signatures()

    def __contains__(self, operation: object) -> bool:
        return operation in self._known


_MANY = 64
"""Operations: from here on cached signatures cost less than they save."""


class _FastHostData:
    """The host's data, on which a name that is not set costs no call of ours.

    pyinfra asks for all 32 global arguments for each operation. HostData searches every layer for each;
    here each name that a layer has is an attribute of a class of the host's own, and Python finds the
    other ones missing by itself. Names come from the layers as they are at first, from deploys' data and
    from assignments.
    """

    get: Any = HostData.get
    dict: Any = HostData.dict
    __str__: Any = HostData.__str__

    def __new__(cls, *_args: Any) -> "_FastHostData":
        return object.__new__(type("host.data", (cls,), {}))

    def __init__(self, host: Host, *layers: Any) -> None:
        HostData.__init__(cast("HostData", self), host, *layers)
        self.add_names(self.dict())

    def __setattr__(self, key: str, value: Any) -> None:
        self.add_names([key])
        HostData.__setattr__(cast("HostData", self), key, value)

    def add_names(self, names: Iterable[str]) -> None:
        for name in names:
            if not hasattr(type(self), name):
                setattr(type(self), name, _Layered(name))


class _Layered:
    """A name of the host's data. Raises AttributeError while no layer has it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, data: Any, kind: type | None = None) -> Any:
        return self if data is None else HostData.__getattr__(data, self._name)
