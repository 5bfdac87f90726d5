"""pyinfra, imported without what a converge of this machine does not use.

pyinfra's API imports gevent, paramiko, typeguard, packaging and importlib.metadata for a few names each,
which costs more than pyinfra itself (pyinfra issue 1605). While it is imported, modules of those names stand
in for them: an exception is the real class, from the one small module that has it; a function imports
the real one when it is called. Afterwards they are gone from sys.modules, and whoever imports paramiko
then (the connector @ssh, a role) has the real one.

Standard library only, and imported before anything of pyinfra. If pyinfra asks for another name, it is
imported plainly.
"""

import gc
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import FunctionType, ModuleType, UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

_NEEDED = ("pyinfra.api", "pyinfra.api.operations", "pyinfra.facts.server")


def _later(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    return call


def _check_type(value: Any, expected: Any, *args: Any, **kwargs: Any) -> Any:
    """As typeguard.check_type, which is asked only about what is not plain to see."""
    if _is_plainly(value, expected):
        return value
    return import_module("typeguard").check_type(value, expected, *args, **kwargs)


def _is_plainly(value: Any, expected: Any) -> bool:
    """Whether `value` is of a type such as pyinfra's global arguments have, without a doubt."""
    expected = getattr(expected, "__supertype__", expected)
    origin, inner = get_origin(expected), get_args(expected)
    if origin in (Union, UnionType):
        return any(_is_plainly(value, one) for one in inner)
    if origin in (list, Iterable):
        return type(value) is list and all(_is_plainly(one, inner[0]) for one in value)
    if origin is Mapping:
        return type(value) is dict and all(
            _is_plainly(key, inner[0]) and _is_plainly(one, inner[1]) for key, one in value.items()
        )
    if origin is Callable and inner[0] == []:
        function = getattr(value, "__func__", value)
        code = getattr(function, "__code__", None)
        return code is not None and code.co_argcount == (function is not value) and not code.co_kwonlyargcount
    return type(value) is expected


def _from(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(import_module(module), name)


def _version(name: str) -> str:
    """As importlib.metadata.version, by the name of the folder that pip and uv write (PEP 376)."""
    for folder in sys.path:
        for found in Path(folder or ".").glob(f"{name}-*.dist-info"):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return str(_later("importlib.metadata", "version")(name))


class _Pool:
    """A pool of greenlets, which is made when it is used."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    @cached_property
    def _made(self) -> Any:
        return import_module("gevent.pool").Pool(*self._arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


class _Later:
    """A module that is imported when something of it is used."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)


class _NotHere:
    """What is imported for an annotation only."""


_METADATA = "importlib.metadata"
_STAND_INS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "gevent": {},
    "gevent.event": {"Event": lambda: _later("gevent.event", "Event")},
    # One thread, no greenlets but those of python.call, which are given the context explicitly.
    "gevent.local": {"local": lambda: threading.local},
    "gevent.pool": {"Pool": lambda: _Pool},
    "gevent.subprocess": {
        "PIPE": lambda: subprocess.PIPE,
        "Popen": lambda: _later("gevent.subprocess", "Popen"),
    },
    "paramiko": {"SSHException": _from("paramiko.ssh_exception", "SSHException"), "PKey": lambda: _NotHere},
    "typeguard": {
        "TypeCheckError": _from("typeguard._exceptions", "TypeCheckError"),
        "check_type": lambda: _check_type,
    },
    "packaging.markers": {"Marker": lambda: _later("packaging.markers", "Marker")},
    "packaging.requirements": {"Requirement": lambda: _later("packaging.requirements", "Requirement")},
    "packaging.specifiers": {"SpecifierSet": lambda: _later("packaging.specifiers", "SpecifierSet")},
    "packaging.version": {"Version": lambda: _later("packaging.version", "Version")},
    # pyinfra asks for this backport first, and else for the standard library's.
    "importlib_metadata": {
        "version": lambda: _version,
        "entry_points": lambda: _later(_METADATA, "entry_points"),
        "distribution": lambda: _later(_METADATA, "distribution"),
        "PackageNotFoundError": _from(_METADATA, "PackageNotFoundError"),
    },
    "dateutil.parser": {"parse": lambda: _later("dateutil.parser", "parse")},
    "distro": {"distro": lambda: _Later("distro.distro")},
}


class _StandIn(ModuleType):
    """A module that has the names of `_STAND_INS`, and all others when it no longer stands for the real one."""

    def __getattr__(self, name: str) -> Any:
        make = _STAND_INS[self.__name__].get(name)
        if make is None and sys.modules.get(self.__name__) is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = make() if make else getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


def import_pyinfra() -> bool:
    """Import pyinfra's API. True: without what it does not use; False: it was there, or plainly."""
    if "pyinfra" in sys.modules:
        return False
    before = set(sys.modules)
    standing = {name: _stand_in(name) for name in _STAND_INS if name not in sys.modules}
    sys.modules.update(standing)
    try:
        for name in _NEEDED:
            import_module(name)
    except Exception:  # noqa: BLE001 - a pyinfra that asks for something else
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "pyinfra":
                del sys.modules[name]
        return False
    finally:
        for name, module in standing.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    return True


def settle() -> None:
    """What is computed anew for each operation and never changes is computed once.

    pyinfra asks `typing.get_type_hints` about the same class each time, which evaluates its 32
    annotations from their text; here the text gives way to its value, as it would stand there without
    `from __future__ import annotations` (PEP 563), and a type made of others to a NewType of it, which
    means the same to whoever checks it and is not taken apart each time. And what is imported by now stays: the garbage
    collector need not look through it again and again.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    with suppress(Exception):  # another pyinfra has other arguments: then it is only slower
        _settle_arguments()


def _settle_arguments() -> None:
    from pyinfra.api.arguments import AllArguments

    hints = get_type_hints(AllArguments)
    AllArguments.__annotations__.update(
        {name: hint if isinstance(hint, type) else NewType(name, hint) for name, hint in hints.items()}
    )


def cache_signatures() -> None:
    """pyinfra asks `inspect.signature` of an operation's function for each call; where the answer is kept is
    inspect's own protocol (PEP 362, `__signature__`)."""
    modules = [module for name, module in sys.modules.items() if name.startswith("pyinfra.operations.")]
    for module in modules:
        for value in vars(module).values():
            function = getattr(value, "_inner", None)
            if isinstance(function, FunctionType) and not hasattr(function, "__signature__"):
                function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]


def _stand_in(name: str) -> ModuleType:
    module = _StandIn(name)
    if "." not in name and (spec := PathFinder.find_spec(name)):
        module.__path__ = spec.submodule_search_locations or []
        module.__spec__ = spec
    return module
