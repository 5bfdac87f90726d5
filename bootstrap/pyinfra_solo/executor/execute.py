"""Execute operations one after the other: converge them, plan them, or check that they are idempotent."""

import resource
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

from pyinfra.api import FunctionCommand, Host, State
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.connectors.util import CommandOutput

from pyinfra_solo import protocol
from pyinfra_solo.deploy import module_of
from pyinfra_solo.errors import ConvergeError, SoloError
from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.executor.evaluate import (
    UNKNOWN_CHANGE,
    MistakeError,
    UnknownOutput,
    check_idempotence,
    evaluate,
    name_of,
    require_no_mistake,
    waits_for_others,
)
from pyinfra_solo.executor.events import EventWriter
from pyinfra_solo.executor.failures import pyinfra_log, translate
from pyinfra_solo.native import programs
from pyinfra_solo.protocol import Request
from pyinfra_solo.system.deadline import alarm
from pyinfra_solo.system.text import in_words, one_line

_OUTPUT_LINES = 40
_WAITS = 5
_DEFERS_RENAME = "pyinfra.operations.files"
"""The one module whose operations may defer the rename of an upload.

They run chown and chmod directly after it.
"""


class Executor:
    """Executes the operations that deploy.py has declared, in their order."""

    def __init__(self, request: Request, state: State, host: Host, events: EventWriter) -> None:
        self._mode, self._state, self._host, self._events = request.mode, state, host, events
        self._waits: list[protocol.Wait] = []
        self._connector = cast("LocalConnector", host.connector)
        self._connector.timeout = request.operation_timeout
        self._connector.before_child = programs.before_child = events.flush
        self._connector.after_child = programs.after_child = self._waited
        state.is_executing = True
        state.current_stage = StateStage.Execute
        self._changed_something = False
        self._failed = ""
        """The operation that a failure is about."""
        self._began = self._cpu = 0.0
        self._to_come: Sequence[str] = ()
        """The operation that runs now, and all after it."""

    def run_all(self) -> None:
        """Run each operation. Raises ConvergeError or DataError when one fails."""
        order = list(self._host.op_hash_order)
        self._events.write(protocol.OperationsDeclared(names=[name_of(self._state, one) for one in order]))
        for number, one in enumerate(order, 1):
            self._to_come = order[number - 1 :]
            self._run(one, number)
        if self._changed_something and self._mode == "converge":
            self._connector.pending.sync()
            self._events.write(protocol.IdempotenceCheckStarted())
            began = time.monotonic()
            found = check_idempotence(self._state, self._host, order)
            seconds = round(time.monotonic() - began, 4)
            self._events.write(protocol.IdempotenceChecked(operations=found, seconds=seconds))

    def evaluate_all(self) -> None:
        """Evaluate the running operation and all later ones, before the first change. Raises MistakeError."""
        began, cpu = time.monotonic(), _cpu()
        waits, lines = list(self._waits), list(pyinfra_log.lines)
        require_no_mistake(self._state, self._host, self._to_come)
        seconds = time.monotonic() - began
        self._events.write(protocol.Evaluated(operations=len(self._to_come), seconds=round(seconds, 4)))
        # It is no part of the running operation.
        self._waits, pyinfra_log.lines = waits, lines
        self._began, self._cpu = self._began + seconds, self._cpu + _cpu() - cpu

    def _waited(self, what: str, seconds: float) -> None:
        self._waits.append(protocol.Wait(what=what, seconds=round(seconds, 4)))

    def _run(self, one: str, number: int) -> None:
        self._start(one, number)
        meta = self._state.get_op_data_for_host(self._host, one).operation_meta
        diff, problem = self._diff_and_problem(one, meta)
        if problem and self._failed != one:  # a later operation, found by `evaluate_all`
            self._end(one, meta, [], failed=False)
            number += self._to_come.index(self._failed)
            one = self._failed
            self._start(one, number)
        self._end(one, meta, diff, failed=problem is not None)
        if problem:
            raise problem

    def _start(self, one: str, number: int) -> None:
        self._failed = one
        self._events.buffer(protocol.OperationStarted(number=number, name=name_of(self._state, one)))
        self._waits.clear()
        pyinfra_log.lines.clear()
        self._connector.last_failure = ""
        self._began, self._cpu = time.monotonic(), _cpu()

    def _end(self, one: str, meta: Any, diff: list[str], *, failed: bool) -> None:
        name = name_of(self._state, one)
        changed = meta.is_complete() and meta.did_change()
        seconds, began = round(time.monotonic() - self._began, 4), round(self._began, 4)
        if not (changed or failed or self._waits or pyinfra_log.lines):
            self._events.buffer(
                protocol.OperationEnded(name=name, changed=False, began=began, seconds=seconds)
            )
            return
        self._events.write(
            protocol.OperationEnded(
                name=name,
                changed=changed,
                failed=failed,
                began=began,
                seconds=seconds,
                cpu=round(_cpu() - self._cpu, 4),
                waits=sorted(self._waits, key=lambda wait: wait.seconds, reverse=True)[:_WAITS],
                output=_output(meta)[-_OUTPUT_LINES:]
                if failed
                else [str(line) for line in pyinfra_log.lines],
                diff=diff,
            )
        )

    def _diff_and_problem(self, one: str, meta: Any) -> tuple[list[str], SoloError | None]:
        """Converge or plan the operation; return its diff, for a plan, and why it failed."""
        name = name_of(self._state, one)
        try:
            if self._mode != "converge":
                return self._plan(one), None
            self._state.trigger_callbacks("operation_start", one)
            if self._call_pyinfra(one):
                self._state.trigger_callbacks("operation_end", one)
                return [], None
        except SoloError as error:
            return [], error
        except MistakeError as mistake:
            self._failed = mistake.one
            return [], mistake.reason
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an operation is foreign code
            return [], translate(error, f"the operation {name!r}")
        if pyinfra_log.cause and not _output(meta):
            return [], translate(pyinfra_log.cause, f"the operation {name!r}")
        return [], ConvergeError(
            f"The operation {name!r} failed: {_last_line(meta, self._connector.last_failure)}"
        )

    def _plan(self, one: str) -> list[str]:
        from pyinfra_solo.executor.diff import preview

        try:
            commands = evaluate(self._state, self._host, one, every_command=True)
        except Exception as error:
            if not self._changed_something or not waits_for_others(error, Path(self._state.cwd or ".")):
                raise
            meta = self._state.get_op_data_for_host(self._host, one).operation_meta
            meta.set_complete(True, [UNKNOWN_CHANGE], UnknownOutput([]))
            return [f"(cannot be planned before earlier operations have run: {in_words(error)})"]
        self._changed_something = self._changed_something or bool(commands)
        return preview(commands, blank=self._mode == "blank", holds_secret=self._events.holds_secret)

    def _call_pyinfra(self, one: str) -> bool:
        """Run the operation by pyinfra's `run_host_op`, which is called only when there is something to do."""
        data = self._state.get_op_data_for_host(self._host, one)
        generator = data.command_generator
        commands = generator()
        first = next(commands, None)
        if first is None:
            return self._note_nothing_to_do(one)
        self._changed_something = True
        self._events.flush()
        seconds = data.global_arguments.get("_timeout") or self._connector.timeout
        if isinstance(first, FunctionCommand):
            data.global_arguments["_timeout"] = int(seconds) or 1  # pyinfra's message shows it
        self._connector.pending.defer_rename = module_of(generator) == _DEFERS_RENAME
        started: list[Iterator[Any]] = [chain([first], commands)]
        data.command_generator = lambda: self._bounded(started.pop() if started else generator(), seconds)
        try:
            return run_host_op(self._state, self._host, one)
        finally:  # where a command failed, or the operation's own code raised, what was put is there, too
            data.command_generator = generator
            self._connector.pending.defer_rename = False  # a role's own code puts files between operations
            self._connector.pending.rename_into_place()

    def _note_nothing_to_do(self, one: str) -> bool:
        """Count and call back as `run_host_op` does for an operation without commands."""
        self._state.trigger_callbacks("operation_host_start", self._host, one)
        results = self._state.get_results_for_host(self._host)
        results.ops += 1
        results.success_ops += 1
        self._state.trigger_callbacks("operation_host_success", self._host, one, 0)
        meta = self._state.get_op_data_for_host(self._host, one).operation_meta
        meta.set_complete(True, [], CommandOutput([]))
        return True

    def _bounded(self, commands: Iterator[Any], seconds: float) -> Iterator[Any]:
        """Yield the commands; give a function pending files and a time-out. Raises OSError.

        gevent's own time-outs, which pyinfra uses, end only what yields to gevent. They come first.
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


def _cpu() -> float:
    """Return the CPU seconds of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _output(meta: Any) -> list[str]:
    return [line.line for line in meta._combined_output or ()]


def _last_line(meta: Any, otherwise: str) -> str:
    lines = [line for line in _output(meta) if line.strip()]
    last = lines[-1] if lines else otherwise or "; ".join(pyinfra_log.lines[-2:]) or "it gave no reason"
    return one_line(last)
