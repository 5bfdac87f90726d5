"""Operations played on this machine by pyinfra itself: its API, its own local connector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state

from tests.support.machine import REPOSITORY


@dataclass(frozen=True)
class Played:
    """made: names of the operations that changed something. failed: of the one that failed, or ''.
    text: what all of them printed."""

    made: tuple[str, ...]
    failed: str
    text: str


def stock_state() -> State:
    state = State(Inventory((["@local"], {})), Config(), check_for_changes=False)
    state.cwd = str(REPOSITORY)
    connect_all(state)
    return state


@contextmanager
def within(state: State) -> Iterator[Host]:
    """The state's one host, in pyinfra's context."""
    host = next(iter(state.inventory))
    with ExitStack() as stack:
        for context in (
            ctx_state.use(state),
            ctx_inventory.use(state.inventory),
            ctx_config.use(state.config.copy()),
            ctx_host.use(host),
        ):
            stack.enter_context(context)
        yield host


def play(declare: Callable[[], Any], cwd: Path = REPOSITORY) -> Played:
    """Prepare what `declare` declares, then run it until one fails, as every driver does."""
    state = stock_state()
    state.cwd = str(cwd)
    with within(state) as host:
        state.set_stage(StateStage.Prepare)
        declare()
        state.set_stage(StateStage.Execute)
        state.is_executing = True
        made, failed, text = [], "", []
        for one in host.op_hash_order:
            well = run_host_op(state, host, one)
            meta = state.ops[host][one].operation_meta
            name = ", ".join(state.get_op_meta(one).names)
            text += [*meta.stdout_lines, *meta.stderr_lines]
            if not well:
                failed = name
                break
            if meta.did_change():
                made.append(name)
    disconnect_all(state)
    return Played(tuple(made), failed, "\n".join(text))
