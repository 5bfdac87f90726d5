"""pyinfra that is imported without its heavy libraries is the same pyinfra: whatever uses them has the real ones.

Each question is asked in processes of their own, with pyinfra imported leanly and plainly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import ENGINE, REPOSITORY

_LEANLY = """
from pyinfra_solo.executor import lazy_pyinfra as lean
assert lean.import_pyinfra()
lean.settle()
"""
_COMMON = """
import json, sys
from pathlib import Path
"""


def said(code: str, *words: str | Path, before: str = "", prefix: tuple[str, ...] = ()) -> Any:
    """What `code` prints at its end, as JSON, in a new process."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", before + _COMMON + code, *words],
        env={**os.environ, "PYTHONPATH": f"{ENGINE}:{REPOSITORY}"}, cwd=REPOSITORY,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def both(code: str, *words: str | Path, prefix: tuple[str, ...] = ()) -> Any:
    """What it prints either way."""
    leanly = said(code, *words, before=_LEANLY, prefix=prefix)
    assert leanly == said(code, *words, prefix=prefix)
    return leanly


def test_nothing_heavy_and_no_stand_in_is_left_behind() -> None:
    found = said(
        """
heavy = [name for name in ("gevent", "paramiko", "typeguard", "importlib.metadata", "distro", "dateutil.parser") if name in sys.modules]
print(json.dumps([heavy, [name for name, module in sys.modules.items() if type(module).__name__ == "_StandIn"]]))
""",
        before=_LEANLY,
    )
    assert found == [[], []]


def test_what_is_imported_afterwards_is_the_real_one() -> None:
    """Of exceptions the same class: what pyinfra catches is what paramiko raises."""
    assert (
        both(
            """
import pyinfra.api, pyinfra.api.facts, pyinfra.api.operations, pyinfra.api.util, pyinfra.facts.server, pyinfra.connectors.util
import gevent, gevent.event, gevent.pool, paramiko, typeguard, packaging.version, dateutil.parser, distro
import pyinfra.connectors.ssh as ssh
print(json.dumps([
    all(module.__spec__ and module.__file__ for module in (gevent, gevent.event, gevent.pool, paramiko, typeguard, distro)),
    pyinfra.api.facts.SSHException is pyinfra.api.operations.SSHException is paramiko.SSHException is ssh.SSHException,
    issubclass(paramiko.AuthenticationException, pyinfra.api.facts.SSHException),
    pyinfra.api.util.TypeCheckError is typeguard.TypeCheckError,
    pyinfra.connectors.util.PIPE is gevent.subprocess.PIPE,
    pyinfra.__version__,
    pyinfra.facts.server.parse_date("Mon Nov 20 10:00:00 +0100 2023").isoformat(),
    pyinfra.facts.server.distro.name(),
    str(gevent.pool.Pool(2).apply(lambda: 3)),
    isinstance(paramiko.RSAKey.generate(1024), paramiko.PKey),
]))
"""
        )[:5]
        == [True] * 5
    )


_STATE = """
from pyinfra.context import ctx_host, ctx_state
if "pyinfra_solo.executor.lazy_pyinfra" in sys.modules:
    from pyinfra_solo.executor.host import local_state
    state = local_state(Path("."), {})
else:
    from pyinfra.api import Config, Inventory, State
    from pyinfra.api.connect import connect_all
    state = State(Inventory((["@local"], {})), Config(), check_for_changes=False)
    connect_all(state)
host = next(iter(state.inventory))
"""

_PLAYED = (
    _STATE
    + """
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_inventory
from pyinfra.operations import python, server
import time

def slow():
    import gevent
    gevent.sleep(60)

with ctx_state.use(state), ctx_inventory.use(state.inventory), ctx_config.use(state.config.copy()), ctx_host.use(host):
    state.set_stage(StateStage.Prepare)
    python.call(name="quick", function=lambda: None, _timeout=30)
    python.call(name="nested", function=lambda: server.shell(commands=["true"]))
    python.call(name="slow", function=slow, _timeout=1, _ignore_errors=True)
    python.call(name="broken", function=lambda: 1 / 0, _ignore_errors=True)
    server.shell(name="command", commands=["sleep 60"], _timeout=1, _ignore_errors=True)
    state.set_stage(StateStage.Execute)
    state.is_executing = True
    done = []
    for one in list(host.op_hash_order):
        well = run_host_op(state, host, one)
        done.append([*state.get_op_meta(one).names, well, state.ops[host][one].operation_meta.did_succeed()])
print(json.dumps(done))
"""
)


def test_a_function_and_a_command_with_a_time_out_end_as_in_pyinfra() -> None:
    assert both(_PLAYED) == [
        ["quick", True, True], ["nested", True, True], ["slow", True, False], ["broken", True, False], ["command", True, False],
    ]  # fmt: skip


_ARGUMENTS = (
    _STATE
    + """
from pyinfra.api.arguments import all_argument_meta, pop_global_arguments

class Called:
    def __call__(self): return True
    def one(self): return True
    def two(self, more): return True
    @staticmethod
    def three(): return True

class Text(str): ...

def named(*, key): return True

VALUES = {
    "true": True, "one": 1, "float": 1.5, "text": "x", "none": None, "bytes": b"x", "texts": ["a"], "numbers": [1], "mixed": ["a", 1], "tuple": ("a",), "empty": [], "set": {"a"},
    "map": {"a": "b"}, "map to number": {"a": 1}, "map from number": {1: "b"}, "empty map": {}, "function": lambda: True, "of one": lambda x: True, "of any": lambda *x: True,
    "of a default": lambda x=1: True, "named": named, "built in": print, "class": Called, "callable": Called(), "method": Called().one, "method of one": Called().two,
    "static": Called.three, "functions": [lambda: True], "functions of one": [lambda x: True], "own text": Text("x"), "own texts": [Text("x")], "nested": [["a"]], "object": object(),
}
with ctx_state.use(state), ctx_host.use(host):
    found = {}
    for name in all_argument_meta:
        for kind, value in VALUES.items():
            try:
                pop_global_arguments(state, host, {name: value})
                found[f"{name} {kind}"] = "well"
            except Exception as error:
                found[f"{name} {kind}"] = f"{type(error).__name__}: {error}".replace(repr(value), "it")
print(json.dumps(found))
"""
)


def test_global_arguments_of_all_types_are_taken_or_refused_as_in_pyinfra() -> None:
    """With the same words."""
    found = both(_ARGUMENTS)
    assert found["_sudo text"].startswith("ArgumentTypeError: ")
    assert found["_sudo true"] == "well"
    assert sum(one == "well" for one in found.values()) > 50
    assert sum(one.startswith("ArgumentTypeError") for one in found.values()) > 50


_FACTS = (
    _STATE
    + """
import struct, subprocess
from pyinfra.facts import server
record = Path(sys.argv[1]) / "lastlog"
record.write_bytes(struct.pack("=i32s256s", 1_700_000_000, b"pts/0", b"192.0.2.1"))
subprocess.run(["mount", "--bind", record, "/var/log/lastlog"], check=True)
with ctx_state.use(state), ctx_host.use(host):
    users = host.get_fact(server.Users)
    print(json.dumps([users["root"], host.get_fact(server.LinuxDistribution), host.get_fact(server.LinuxName), host.get_fact(server.Date).year > 2000], default=str))
"""
)


def test_facts_that_read_dates_and_distributions_are_those_of_pyinfra(tmp_path: Path) -> None:
    """Among them an account that has logged in."""
    root, distribution, name, _ = both(_FACTS, tmp_path, prefix=("unshare", "--mount"))
    assert root["login_time"].startswith("2023-11-1")
    assert distribution["name"] == name


def test_pyinfras_own_connector_works_afterwards() -> None:
    assert both(
        """
from pyinfra.api import Config, Inventory, State, StringCommand
from pyinfra.api.connect import connect_all
from pyinfra.api.facts import get_facts
from pyinfra.facts.server import Command
state = State(Inventory((["@local"], {})), Config(), check_for_changes=False)
connect_all(state)
print(json.dumps(list(get_facts(state, Command, kwargs={"command": "echo well"}).values())))
"""
    ) == ["well"]


def test_a_pyinfra_that_is_older_than_wanted_is_refused_as_in_pyinfra() -> None:
    both(
        """
from pyinfra.api import Config
found = []
for wanted in (">=1", ">=99", "not a version", "==3.*"):
    try:
        Config(REQUIRE_PYINFRA_VERSION=wanted)
        found.append("well")
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""
    )


@pytest.mark.parametrize(
    "name", ["gevent.event.Event", "typeguard.check_type", "paramiko.SSHException", "dateutil.parser.parse"]
)
def test_a_pyinfra_that_asks_for_another_name_is_imported_plainly(name: str) -> None:
    """As the next release may."""
    module, _, wanted = name.rpartition(".")
    found = said(
        f"""
from pyinfra_solo.executor import lazy_pyinfra as lean
del lean._STAND_INS[{module!r}][{wanted!r}]
leanly = lean.import_pyinfra()
import pyinfra.api.operations, pyinfra.facts.server, paramiko, gevent
lean.settle()
print(json.dumps([leanly, pyinfra.api.operations.SSHException is paramiko.SSHException, pyinfra.api.operations.gevent is gevent,
    [name for name, module in sys.modules.items() if type(module).__name__ == "_StandIn"]]))
"""
    )
    assert found == [False, True, True, []]


def test_a_pyinfra_that_is_there_already_is_left_alone() -> None:
    assert said(
        """
import pyinfra.api
from pyinfra_solo.executor import lazy_pyinfra as lean
before = set(sys.modules)
leanly = lean.import_pyinfra()
print(json.dumps([leanly, "paramiko" in before, sorted(set(sys.modules) - before)]))
"""
    ) == [False, True, []]


def test_the_types_of_global_arguments_are_the_same_once_they_are_settled() -> None:
    assert said(
        """
import inspect
from typing import get_type_hints
from pyinfra_solo.executor import lazy_pyinfra as lean
lean.import_pyinfra()
from pyinfra.api.arguments import AllArguments, ConnectorArguments, MetaArguments, all_argument_meta
def hints():
    # A NewType of a type stands for it.
    return [{name: getattr(hint, "__supertype__", hint) for name, hint in get_type_hints(one).items()}
        for one in (AllArguments, ConnectorArguments, MetaArguments)]
before = hints()
required = AllArguments.__required_keys__
lean.settle()
after = hints()
print(json.dumps([before == after, len(before[0]) == len(all_argument_meta) > 20, required == AllArguments.__required_keys__]))
"""
    ) == [True, True, True]
