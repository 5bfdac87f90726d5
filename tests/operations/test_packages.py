"""All roles' packages come with the first operation that misses one; each State, host and plan is its own.

dpkg's database is below the test's folder; nothing is installed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Config, Host, State
from pyinfra.context import ctx_config, ctx_host, ctx_state

from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.executor.host import LocalHost, LocalInventory, local_state
from pyinfra_solo.operations import packages, prelude
from tests.support import line, ops_repo
from tests.support.machine import LocalMachine

ROLE = """
from pyinfra_solo.operations import packages
packages.installed(name="alpha is installed", packages=["no-such-alpha"])
packages.installed(name="beta is installed", packages=["no-such-beta", "no-such-gamma"])
packages.installed(name="delta is installed", packages=["no-such-delta"], alone=True)
"""


Installed = Callable[..., None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """`installed(*names)`: from now on dpkg's database has these packages, and no other."""
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path))

    def write(*names: str) -> None:
        stanza = "Package: {}\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
        (tmp_path / "status").write_text("\n".join(map(stanza.format, names)))

    write()
    return write


@pytest.fixture
def state(tmp_path: Path, installed: Installed) -> State:  # noqa: ARG001
    return local_state(tmp_path, {})


@contextmanager
def of(state: State, host: Host | None = None) -> Iterator[None]:
    host = host or next(iter(state.inventory))
    with ctx_state.use(state), ctx_config.use(state.config), ctx_host.use(host):
        yield


def wants(state: State, *names: str, host: Host | None = None, **options: Any) -> Any:
    """Declare an operation; what pyinfra holds of it."""
    with of(state, host):
        packages.installed(packages=names, **options)
    host = host or next(iter(state.inventory))
    return state.ops[host][host.op_hash_order[-1]]


def planned(state: State, operation: Any, host: Host | None = None) -> list[list[str]]:
    """The packages of each command that it would run; none is run."""
    state.is_executing = True
    with of(state, host):
        return [asked(command) for command in operation.command_generator()]


def arguments(command: Any) -> dict[str, Any]:
    return prelude.decode([str(getattr(bit, "obj", bit)) for bit in command.bits][7:])


def asked(command: Any) -> list[str]:
    names: list[str] = arguments(command)["packages"]
    return names


def plans(state: State, operations: Sequence[Any]) -> list[list[list[str]]]:
    return [planned(state, operation) for operation in operations]


def test_the_first_operation_installs_what_all_want(state: State) -> None:
    operations = [wants(state, "a"), wants(state, "b", "c"), wants(state, "c", "d")]
    assert plans(state, operations) == [[["a", "b", "c", "d"]], [], []]


def test_an_operation_that_misses_nothing_leaves_it_to_the_next(state: State, installed: Installed) -> None:
    installed("a")
    operations = [wants(state, "a"), wants(state, "b"), wants(state, "c")]
    assert plans(state, operations) == [[], [["b", "c"]], []]


def test_in_a_run_later_operations_go_by_the_machine(state: State, installed: Installed) -> None:
    first, second, third = [wants(state, name) for name in "abc"]
    state.is_executing = True
    with of(state):
        commands = first.command_generator()
        assert asked(next(commands)) == ["a", "b", "c"]
        installed("a", "b", "c")
        assert list(commands) == []
    assert planned(state, second) == []
    installed("a")
    assert planned(state, second) == [["b", "c"]]
    assert planned(state, third) == []


def test_a_failed_install_promises_nothing(state: State) -> None:
    """Its generator is closed at the command that failed."""
    first, second = wants(state, "a"), wants(state, "b")
    state.is_executing = True
    with of(state):
        next(commands := first.command_generator())
        commands.close()
    assert planned(state, second) == [["b"]]


def test_each_plan_goes_by_the_machine(state: State, installed: Installed) -> None:
    operations = [wants(state, "a"), wants(state, "b")]
    assert plans(state, operations) == plans(state, operations) == [[["a", "b"]], []]
    installed("a", "b")
    assert plans(state, operations) == [[], []]
    installed("a")
    assert plans(state, operations) == [[], [["b"]]]
    installed("b")
    assert plans(state, operations) == [[["a"]], []]


@pytest.mark.parametrize("option", [{"_if": lambda: True}, {"_ignore_errors": True}, {"alone": True}])
def test_what_may_not_be_or_must_wait_comes_alone(state: State, option: dict[str, Any]) -> None:
    operations = [wants(state, "a"), wants(state, "b", **option), wants(state, "c")]
    assert plans(state, operations) == [[["a", "c"]], [["b"]], []]


def test_what_must_wait_takes_nothing_with_it(state: State) -> None:
    operations = [wants(state, "a", alone=True), wants(state, "a", "b"), wants(state, "c")]
    assert plans(state, operations) == [[["a"]], [["b", "c"]], []]


def test_an_if_of_a_deploy_counts_as_one_of_the_call(state: State) -> None:
    first = wants(state, "a")
    host = next(iter(state.inventory))
    unsure: Any = {"_if": lambda: False}
    with of(state), host.deploy(name="role", kwargs=unsure, data=None):
        packages.installed(packages=["b"])
    assert planned(state, first) == [["a"]]


def test_calls_under_another_account_do_not_mix(state: State) -> None:
    operations = [wants(state, "a", _env={"X": "1"}), wants(state, "b"), wants(state, "c")]
    assert plans(state, operations) == [[["a"]], [["b", "c"]], []]


def test_the_youngest_lists_that_are_asked_for_count(state: State) -> None:
    first, _ = wants(state, "a", lists_age=50), wants(state, "b", lists_age=7)
    state.is_executing = True
    with of(state):
        command = next(first.command_generator())
    assert arguments(command) == {"lock_timeout": 300, "lists_age": 7, "packages": ["a", "b"]}


def test_two_states_share_nothing(state: State, tmp_path: Path) -> None:
    other = local_state(tmp_path, {})
    first, second = wants(state, "a"), wants(other, "b")
    assert planned(state, first) == [["a"]]
    assert planned(other, second) == [["b"]]


@pytest.mark.usefixtures("installed")
def test_hosts_of_one_state_share_nothing(tmp_path: Path) -> None:
    state = State(Two({}), Config(), check_for_changes=False)
    state.cwd = str(tmp_path)
    one, two = state.inventory
    for host in (one, two):
        host.connected = True
        state.activate_host(host)
    first, second = wants(state, "a", host=one), wants(state, "a", "b", host=two)
    wants(state, "c", host=one)
    assert planned(state, first, one) == [["a", "c"]]
    assert planned(state, second, two) == [["a", "b"]]


class Two(LocalInventory):
    """Two hosts, both this machine."""

    def make_hosts_and_groups(self, names: Any, groups: Any) -> None:
        super().make_hosts_and_groups(names, groups)
        self.hosts["@two"] = LocalHost(
            "@two", inventory=self, groups=["@local"], connector_cls=LocalConnector
        )
        self.host_data["@two"] = {}


@pytest.mark.usefixtures("machine_root")
def test_a_plan_shows_all_packages_at_the_first_operation(tmp_path: Path) -> None:
    root = ops_repo.write(tmp_path / "ops", ops_repo.ops(ROLE, tmp_path))
    for mode in ("plan", "blank"):
        done = line.converged(root, mode=mode).operations
        assert [one.changed for one in done] == [True, False, True]
        assert [line.partition(" lists_age")[2] for one in done for line in one.diff] == [
            """:=86400 'packages:=["no-such-alpha", "no-such-beta", "no-such-gamma"]'""",
            """:=86400 'packages:=["no-such-delta"]'""",
        ]
        assert all(line.startswith("$ packages apply ") for one in done for line in one.diff)


def test_pyinfras_own_plan_shows_the_same(tmp_path: Path) -> None:
    machine = LocalMachine(tmp_path / "machine")
    root = ops_repo.write(tmp_path / "ops", ops_repo.ops(ROLE, tmp_path))
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    done = machine.command([pyinfra, "--dry", "@local", "deploy.py"], cwd=root).expect(0)
    table = [line.split() for line in (done.stdout + done.stderr).splitlines() if "is installed" in line]
    assert [(line[2], line[5]) for line in table] == [("alpha", "1"), ("beta", "-"), ("delta", "1")]
