"""Import pyinfra without the libraries that a converge of this machine does not use.

pyinfra's API imports gevent, paramiko, typeguard, packaging and importlib.metadata for a few names each,
which costs more than pyinfra itself (pyinfra issue 1605). While pyinfra is imported, stub modules stand
in for them: an exception is the real class, from the one small module that has it; a function imports
the real one when it is called. Afterwards the stubs are removed from sys.modules, and whoever imports
paramiko then (the connector @ssh, a role) gets the real one.

Standard library only, and imported before anything of pyinfra. If pyinfra asks a stub for an unknown
name, it is imported plainly.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_NEEDED = ("pyinfra.api", "pyinfra.api.operations", "pyinfra.facts.server")


class _Later:
    """An object that is made at its first use."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Any:
        return self._make()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


def _call(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    return call


def _calls(module: str, *names: str) -> dict[str, Callable[[], Any]]:
    return {name: partial(_call, module, name) for name in names}


def _class(module: str, name: str) -> dict[str, Callable[[], Any]]:
    return {name: lambda: getattr(import_module(module), name)}


def _version(name: str) -> str:
    """Return a package's version by the name of its .dist-info folder (PEP 376)."""
    for folder in sys.path:
        for found in Path(folder or ".").glob(f"{name}-*.dist-info"):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return str(import_module(_METADATA).version(name))


_METADATA = "importlib.metadata"
_STUBS: Mapping[str, Mapping[str, Callable[[], Any]]] = {
    "gevent": {},
    "gevent.event": _calls("gevent.event", "Event"),
    # One thread, no greenlets but those of python.call, which are given the context explicitly.
    "gevent.local": {"local": lambda: threading.local},
    "gevent.pool": {"Pool": lambda: lambda *size: _Later(lambda: import_module("gevent.pool").Pool(*size))},
    "gevent.subprocess": {"PIPE": lambda: subprocess.PIPE, **_calls("gevent.subprocess", "Popen")},
    # pyinfra has PKey in annotations only.
    "paramiko": {"PKey": lambda: object, **_class("paramiko.ssh_exception", "SSHException")},
    "typeguard": {
        **_calls("pyinfra_solo.executor.pyinfra_speed", "check_type"),
        **_class("typeguard._exceptions", "TypeCheckError"),
    },
    "packaging.markers": _calls("packaging.markers", "Marker"),
    "packaging.requirements": _calls("packaging.requirements", "Requirement"),
    "packaging.specifiers": _calls("packaging.specifiers", "SpecifierSet"),
    "packaging.version": _calls("packaging.version", "Version"),
    # pyinfra asks for this backport first, and else for the standard library's.
    "importlib_metadata": {
        "version": lambda: _version,
        **_calls(_METADATA, "entry_points", "distribution"),
        **_class(_METADATA, "PackageNotFoundError"),
    },
    "dateutil.parser": _calls("dateutil.parser", "parse"),
    "distro": {"distro": lambda: _Later(lambda: import_module("distro.distro"))},
}


class _Stub(ModuleType):
    """Has the names of `_STUBS`; once removed from sys.modules, all names of the real module."""

    def __getattr__(self, name: str) -> Any:
        make = _STUBS[self.__name__].get(name)
        if make is None and sys.modules.get(self.__name__) is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = make() if make else getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


def import_pyinfra() -> bool:
    """Import pyinfra's API. Returns False when it was imported already, or without stubs."""
    if "pyinfra" in sys.modules:
        return False
    before = set(sys.modules)
    stubs = {name: _stub(name) for name in _STUBS if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        for name in _NEEDED:
            import_module(name)
    except Exception:  # noqa: BLE001 - a pyinfra that asks for something else
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "pyinfra":
                del sys.modules[name]
        return False
    finally:
        for name, module in stubs.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
    return True


def _stub(name: str) -> ModuleType:
    module = _Stub(name)
    if "." not in name and (spec := PathFinder.find_spec(name)):
        module.__path__ = spec.submodule_search_locations or []
        module.__spec__ = spec
    return module
