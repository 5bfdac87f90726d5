"""Questions about pyinfra as it was imported: lazily by us, or plainly. No pyinfra is imported at the top."""

import json
import struct
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support.apart import mount_over


def is_lazy() -> bool:
    return "pyinfra_solo.executor.lazy_pyinfra" in sys.modules


def new_state() -> Any:
    """A state of this machine: ours, or pyinfra's own."""
    if is_lazy():
        from pyinfra_solo.executor.host import local_state

        return local_state(Path(), {})
    from tests.support.pyinfra_api import pyinfra_state

    return pyinfra_state()


def left_behind() -> list[list[str]]:
    """Heavy modules, and stubs, that are in sys.modules."""
    heavy = ("gevent", "paramiko", "typeguard", "importlib.metadata", "distro", "dateutil.parser")
    stubs = [name for name, module in sys.modules.items() if type(module).__name__ == "_Stub"]
    return [[name for name in heavy if name in sys.modules], stubs]


def imported_afterwards() -> list[Any]:
    import pyinfra
    import pyinfra.api.facts
    import pyinfra.api.operations
    import pyinfra.api.util
    import pyinfra.connectors.util
    import pyinfra.facts.server
    from pyinfra.connectors import ssh

    names = ("gevent", "gevent.event", "gevent.subprocess", "gevent.pool", "paramiko", "typeguard", "packaging.version", "dateutil.parser", "distro")  # fmt: skip
    modules: dict[str, Any] = {name: import_module(name) for name in names}
    paramiko, typeguard = modules["paramiko"], modules["typeguard"]
    return [
        all(module.__spec__ and module.__file__ for module in modules.values()),
        pyinfra.api.facts.SSHException is pyinfra.api.operations.SSHException is paramiko.SSHException,
        ssh.SSHException is paramiko.SSHException,
        issubclass(paramiko.AuthenticationException, pyinfra.api.facts.SSHException),
        pyinfra.api.util.TypeCheckError is typeguard.TypeCheckError,
        pyinfra.connectors.util.PIPE is modules["gevent.subprocess"].PIPE,
        isinstance(paramiko.RSAKey.generate(1024), paramiko.PKey),
        pyinfra.__version__,
        pyinfra.facts.server.parse_date("Mon Nov 20 10:00:00 +0100 2023").isoformat(),
        pyinfra.facts.server.distro.name(),
        str(modules["gevent.pool"].Pool(2).apply(lambda: 3)),
    ]


def time_outs() -> list[list[Any]]:
    from pyinfra.api.operations import run_host_op
    from pyinfra.api.state import StateStage
    from pyinfra.operations import python, server

    from tests.support.pyinfra_api import within

    def sleep() -> None:
        import_module("gevent").sleep(60)

    state = new_state()
    with within(state) as host:
        state.set_stage(StateStage.Prepare)
        python.call(name="quick", function=lambda: None, _timeout=30)
        python.call(name="nested", function=lambda: server.shell(commands=["true"]))
        python.call(name="slow", function=sleep, _timeout=1, _ignore_errors=True)
        python.call(name="broken", function=lambda: 1 / 0, _ignore_errors=True)
        server.shell(name="command", commands=["sleep 60"], _timeout=1, _ignore_errors=True)
        state.set_stage(StateStage.Execute)
        state.is_executing = True
        done: list[list[Any]] = []
        for one in list(host.op_hash_order):
            success = run_host_op(state, host, one)
            succeeded = state.ops[host][one].operation_meta.did_succeed()
            done.append([*state.get_op_meta(one).names, success, succeeded])
        return done


class Callable:
    def __call__(self) -> bool:
        return True

    def one(self) -> bool:
        return True

    def two(self, more: object) -> bool:
        return bool(more)

    @staticmethod
    def three() -> bool:
        return True


class Text(str):
    __slots__ = ()


def named(*, key: object) -> bool:
    return bool(key)


VALUES: dict[str, Any] = {
    "true": True, "one": 1, "float": 1.5, "text": "x", "none": None, "bytes": b"x", "texts": ["a"], "numbers": [1], "mixed": ["a", 1], "tuple": ("a",), "empty": [], "set": {"a"},
    "map": {"a": "b"}, "map to number": {"a": 1}, "map from number": {1: "b"}, "empty map": {}, "function": lambda: True, "of one": lambda x: x, "of any": lambda *x: x,
    "of a default": lambda x=1: x, "named": named, "built in": sum, "class": Callable, "callable": Callable(), "method": Callable().one, "method of one": Callable().two,
    "static": Callable.three, "functions": [lambda: True], "functions of one": [lambda x: x], "own text": Text("x"), "own texts": [Text("x")], "nested": [["a"]], "object": object(),
}  # fmt: skip


def global_arguments() -> dict[str, str]:
    """What pyinfra says of each global argument with a value of each type."""
    from pyinfra.api.arguments import all_argument_meta, pop_global_arguments

    from tests.support.pyinfra_api import within

    found = {}
    state = new_state()
    with within(state) as host:
        for name in all_argument_meta:
            for kind, value in VALUES.items():
                try:
                    pop_global_arguments(state, host, {name: value})
                    found[f"{name} {kind}"] = "well"
                except Exception as error:  # noqa: BLE001 - whichever it is, both ways should agree
                    found[f"{name} {kind}"] = f"{type(error).__name__}: {error}".replace(repr(value), "it")
    return found


def dates_and_distributions(folder: str) -> Any:
    """Facts that use dateutil and distro, with an account that has logged in."""
    from pyinfra.facts import server

    from tests.support.pyinfra_api import within

    record = Path(folder, "lastlog")
    record.write_bytes(struct.pack("=i32s256s", 1_700_000_000, b"pts/0", b"192.0.2.1"))
    subprocess.run(["cp", "-a", "/var/log", folder], check=True)
    record.rename(Path(folder, "log/lastlog"))
    mount_over("/var/log", Path(folder, "log"))
    with within(new_state()) as host:
        users = host.get_fact(server.Users)
        facts = [users["root"], host.get_fact(server.LinuxDistribution), host.get_fact(server.LinuxName)]
        return json.loads(json.dumps([*facts, host.get_fact(server.Date).year > 2000], default=str))


def own_connector() -> list[str]:
    """What pyinfra's own connector gives, by its pool of greenlets."""
    from pyinfra.api.facts import get_facts
    from pyinfra.facts.server import Command

    from tests.support.pyinfra_api import pyinfra_state

    return list(get_facts(pyinfra_state(), Command, kwargs={"command": "echo well"}).values())


def required_versions() -> list[str]:
    from pyinfra.api import Config

    found = []
    for wanted in (">=1", ">=99", "not a version", "==3.*"):
        try:
            Config(REQUIRE_PYINFRA_VERSION=wanted)
            found.append("well")
        except Exception as error:  # noqa: BLE001 - whichever it is, both ways should agree
            found.append(f"{type(error).__name__}: {error}")
    return found


def with_an_unknown_name(module: str, name: str) -> list[Any]:
    """Import lazily while a stub lacks a name that pyinfra asks for, as the next release may."""
    from pyinfra_solo.executor import lazy_pyinfra

    assert "pyinfra" not in sys.modules
    typing.cast("dict[str, Any]", lazy_pyinfra._STUBS[module]).pop(name)
    lazily = lazy_pyinfra.import_pyinfra()
    from pyinfra_solo.executor import pyinfra_speed

    pyinfra_speed.start()
    operations, paramiko, gevent = map(import_module, ("pyinfra.api.operations", "paramiko", "gevent"))
    are_real = [operations.SSHException is paramiko.SSHException, operations.gevent is gevent]
    return [lazily, *are_real, left_behind()[1]]


def with_pyinfra_imported_already() -> list[Any]:
    import pyinfra.api

    from pyinfra_solo.executor import lazy_pyinfra

    before = set(sys.modules)
    lazily = lazy_pyinfra.import_pyinfra()
    return [pyinfra.api.Host.__name__, lazily, "paramiko" in before, sorted(set(sys.modules) - before)]


def cached_annotations() -> list[bool]:
    from pyinfra_solo.executor import lazy_pyinfra

    assert lazy_pyinfra.import_pyinfra()
    from pyinfra.api.arguments import AllArguments, ConnectorArguments, MetaArguments, all_argument_meta

    from pyinfra_solo.executor import pyinfra_speed

    def hints() -> list[dict[str, Any]]:
        # A NewType of a type stands for it.
        return [
            {name: getattr(hint, "__supertype__", hint) for name, hint in typing.get_type_hints(one).items()}
            for one in (AllArguments, ConnectorArguments, MetaArguments)
        ]

    before, required = hints(), AllArguments.__required_keys__
    pyinfra_speed.cache_annotations()
    as_many = len(before[0]) == len(all_argument_meta) > 20
    return [before == hints(), as_many, required == AllArguments.__required_keys__]
