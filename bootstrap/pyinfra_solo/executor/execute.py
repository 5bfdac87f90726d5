"""Operations, one after the other: converged, planned, and looked at again."""

import re
import resource
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

from pyinfra.api import FileUploadCommand, FunctionCommand, Host, State, StringCommand
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.connectors.util import CommandOutput

from pyinfra_solo.errors import ConvergeError, SoloError
from pyinfra_solo.executor.connector import LocalConnector, program
from pyinfra_solo.executor.events import EventWriter
from pyinfra_solo.executor.failures import pyinfra_log, translate
from pyinfra_solo.native import programs
from pyinfra_solo.role import in_words
from pyinfra_solo.system.alarm import alarm

if TYPE_CHECKING:  # it is the program's main module, which must not be loaded twice
    from pyinfra_solo.executor.__main__ import Request

_TAIL = 40
_WAITS = 5
_WHOLE = "pyinfra.operations.files"
"""Only this module's operations may defer the rename: they run chown and chmod directly after the upload."""


class Executor:
    """The operations of a run."""

    def __init__(self, request: "Request", state: State, host: Host, tell: EventWriter) -> None:
        self._mode, self._state, self._host, self._tell = request.mode, state, host, tell
        self._waits: list[tuple[str, float]] = []
        self._connector = cast("LocalConnector", host.connector)
        self._connector.timeout = request.operation_seconds
        self._connector.before_child, self._connector.after_child = (
            tell.hurry,
            lambda *wait: self._waits.append(wait),
        )
        programs.before_child, programs.after_child = (
            self._connector.before_child,
            self._connector.after_child,
        )
        state.is_executing = True
        state.current_stage = StateStage.Execute
        self._touched = False

    def all(self) -> None:
        """Each in its turn. Raises ConvergeError or DataError when one fails."""
        order = list(self._host.op_hash_order)
        self._tell.event("operations", names=[name_of(self._state, one) for one in order])
        for number, one in enumerate(order, 1):
            self._one(one, number)
        if self._touched:
            self._connector.pending.sync()
            self._tell.event("second look")
            began = time.monotonic()
            found = again(self._state, self._host, order)
            self._tell.event("again", operations=found, seconds=round(time.monotonic() - began, 4))

    def _one(self, one: str, number: int) -> None:
        name = name_of(self._state, one)
        self._tell.starting(number=number, name=name)
        self._waits.clear()
        pyinfra_log.lines.clear()
        began, cpu = time.monotonic(), _cpu()
        meta = self._state.get_op_data_for_host(self._host, one).operation_meta
        diff, problem = self._do(one, name, meta)
        changed = meta.is_complete() and meta.did_change()
        times = {"began": round(began, 4), "seconds": round(time.monotonic() - began, 4)}
        if not (changed or problem or self._waits or pyinfra_log.lines):
            self._tell.unchanged(name=name, **times)
            return
        self._tell.ended(
            name=name,
            changed=changed,
            failed=problem is not None,
            **times,
            cpu=round(_cpu() - cpu, 4),
            waits=_longest(self._waits),
            output=_output(meta)[-_TAIL:] if problem else list(pyinfra_log.lines),
            diff=diff,
        )
        if problem:
            raise problem

    def _do(self, one: str, name: str, meta: Any) -> tuple[list[str], SoloError | None]:
        """What it would do, for a plan; why it failed."""
        try:
            if self._mode != "converge":
                from pyinfra_solo.executor.diff import preview

                commands = _look(self._state, self._host, one, all_of_them=True)
                return [
                    line for each in commands for line in preview(each, blank=self._mode == "blank")
                ], None
            if not self._converge(one):
                return [], ConvergeError(f"The operation {name!r} failed: {_last_words(meta)}")
        except SoloError as error:
            return [], error
        except Exception as error:  # noqa: BLE001 - an operation is foreign code
            return [], translate(error, f"the operation {name!r}")
        return [], None

    def _converge(self, one: str) -> bool:
        """As pyinfra's `run_host_op`, which is called when there is something to do."""
        data = self._state.get_op_data_for_host(self._host, one)
        generator = data.command_generator
        commands = generator()
        first = next(commands, None)
        if first is None:
            data.operation_meta.set_complete(True, [], CommandOutput([]))
            return True
        self._touched = True
        self._tell.hurry()
        seconds = data.global_arguments.get("_timeout") or self._connector.timeout
        if isinstance(first, FunctionCommand):
            data.global_arguments["_timeout"] = int(seconds) or 1  # pyinfra's message has it
        self._connector.pending.defer_rename = _module_of(generator) == _WHOLE
        start_run: list[Iterator[Any]] = [chain([first], commands)]
        data.command_generator = lambda: self._whole(start_run.pop() if start_run else generator(), seconds)
        try:
            return run_host_op(self._state, self._host, one)
        finally:
            data.command_generator = generator

    def _whole(self, commands: Iterator[Any], seconds: float) -> Iterator[Any]:
        """The commands. A function finds what was put in its place, and has a time like any other; at the
        end all of it is in its place. Raises OSError.

        gevent's own time-outs, which pyinfra uses, end what gives way to gevent, and nothing else: they come first.
        """
        for command in commands:
            if isinstance(command, FunctionCommand):
                self._connector.pending.sync()
                late = TimeoutError(f"took longer than {seconds:g} s and was ended")
                with alarm(seconds + 0.2, late):
                    yield command
            else:
                yield command
        self._connector.pending.rename_into_place()


def _module_of(generator: Callable[..., Any]) -> str:
    """Where the operation's function is from, by what pyinfra's wrapper closes over; '' when it cannot be told."""
    generator = getattr(generator, "__wrapped__", generator)
    cells = dict(zip(generator.__code__.co_freevars, generator.__closure__ or (), strict=False))
    return str(getattr(cells["func"].cell_contents, "__module__", "")) if "func" in cells else ""


def _cpu() -> float:
    """Seconds of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _longest(waits: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    ordered = sorted(waits, key=lambda wait: wait[1], reverse=True)[:_WAITS]
    return [{"what": what, "seconds": round(seconds, 4)} for what, seconds in ordered]


def _look(state: State, host: Host, one: str, *, all_of_them: bool = False) -> list[Any]:
    """The first command that the operation would give, or all of them, for which its own code is run past
    each. None is executed, and it counts as done, so that what depends on it (`_if=it.did_change`) is looked at too."""
    data = state.get_op_data_for_host(host, one)
    generator = cast("Generator[Any, None, None]", data.command_generator())
    commands = list(islice(generator, None if all_of_them else 1))
    generator.close()
    data.operation_meta.set_complete(True, commands, CommandOutput([]))
    return commands


def again(state: State, host: Host, order: Sequence[str]) -> list[dict[str, Any]]:
    """A second look at every operation after a converge: what each would begin again, or why that cannot be
    seen. Nothing is executed, and nothing that was done the first time counts."""
    for one in order:
        meta = state.get_op_data_for_host(host, one).operation_meta
        vars(meta).clear()
        meta.__init__(one, is_change=None)  # type: ignore[misc]
    found = []
    for one in order:
        try:
            preview = [_in_short(command) for command in _look(state, host, one)]
        except Exception as error:  # noqa: BLE001 - an operation is foreign code
            preview = [f"cannot be looked at: {in_words(error)}"]
        if preview:
            found.append({"name": name_of(state, one), "would": preview})
    return found


def _in_short(command: Any) -> str:
    """For a report, which is no place for arguments or contents: they may hold secrets."""
    if isinstance(command, FileUploadCommand):
        return f"put {command.dest}"
    if isinstance(command, StringCommand):
        return f"run {program(command)}"
    return f"call {getattr(getattr(command, 'function', command), '__name__', type(command).__name__)}"


def name_of(state: State, one: str) -> str:
    """Its name alone: pyinfra's arguments may hold secrets."""
    return ", ".join(sorted(state.get_op_meta(one).names))


def _output(meta: Any) -> list[str]:
    return [line.line for line in meta._combined_output or ()]


def _last_words(meta: Any) -> str:
    lines = [line for line in _output(meta) if line.strip()]
    said = lines[-1] if lines else "; ".join(pyinfra_log.lines[-2:]) or "it gave no reason"
    return re.sub(r"\s+", " ", said)
