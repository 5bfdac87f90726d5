"""Run operations on this machine by pyinfra itself: its API, its own local connector."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

from pyinfra_solo.executor.connector import LocalConnector
from tests.support.machine import REPOSITORY


@dataclass(frozen=True)
class Played:
    """made: names of the operations that changed something. failed: of the one that failed, with its exception, or ''.
    text: what all of them printed."""

    made: tuple[str, ...]
    failed: str
    text: str


def pyinfra_state() -> State:
    """pyinfra's own inventory and connector."""
    state = State(Inventory((["@local"], {})), Config(), check_for_changes=False)
    state.cwd = str(REPOSITORY)
    connect_all(state)
    return state


@contextmanager
def within(state: State) -> Iterator[Host]:
    """The state's one host, in pyinfra's context."""
    host = next(iter(state.inventory))
    config = state.config.copy()
    with ctx_state.use(state), ctx_inventory.use(state.inventory), ctx_config.use(config), ctx_host.use(host):
        yield host


def play(declare: Callable[[], Any], cwd: Path = REPOSITORY) -> Played:
    """Run what `declare` declares by pyinfra; an operation's exception is raised."""
    state = pyinfra_state()
    state.cwd = str(cwd)
    played = play_in(state, declare, catch=())
    disconnect_all(state)
    return played


def play_in(
    state: State, declare: Callable[[], Any], catch: tuple[type[Exception], ...] = (Exception,)
) -> Played:
    """Declare, then run until an operation fails, as every driver does. An exception in `catch` is a failure."""
    made, failed, text = [], "", list[str]()
    with within(state) as host:
        state.set_stage(StateStage.Prepare)
        declare()
        state.set_stage(StateStage.Execute)
        state.is_executing = True
        ours = host.connector if isinstance(host.connector, LocalConnector) else None
        if ours:
            ours.pending.defer_rename = True
        for one in host.op_hash_order:
            meta = state.ops[host][one].operation_meta
            name = ", ".join(state.get_op_meta(one).names)
            try:
                success = run_host_op(state, host, one)
                if ours:
                    ours.pending.rename_into_place()
            except catch as error:
                failed = f"{name}: {type(error).__name__}"
                break
            text += [*meta.stdout_lines, *meta.stderr_lines]
            if not success:
                failed = name
                break
            if meta.did_change():
                made.append(name)
    return Played(tuple(made), failed, "\n".join(text))
