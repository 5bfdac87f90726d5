"""What the child of station converge does: declares the operations of deploy.py, and runs or plans them."""

import logging
import re
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError
from pyinfra.api import FileUploadCommand, Host, State, StringCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.facts import ShortFactBase
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra.facts.files import Directory

from pyinfra_solo import checks, deploy
from pyinfra_solo.data import secrets
from pyinfra_solo.errors import ConvergeError, DataError, SoloError
from pyinfra_solo.gate import close_gate, look
from pyinfra_solo.host import ThisHost, state_here
from pyinfra_solo.local import ThisMachine, program
from pyinfra_solo.native import known
from pyinfra_solo.part import Part, bind
from pyinfra_solo.role import in_words
from pyinfra_solo.telling import Telling

if TYPE_CHECKING:  # it is the program's main module, which must not be loaded twice
    from pyinfra_solo.play import Request

_TAIL = 40
_WAITS = 5


class BlankMachine(Host):
    """A machine with systemd and nothing else on it: every fact is its own default, or what its
    `blank` makes of the question, where the default does not say it."""

    def get_fact(self, name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        fact = name_or_cls()
        if hasattr(fact, "blank"):
            return fact.blank(**kwargs)
        if name_or_cls is Directory and kwargs.get("path") == "/run/systemd/system":
            return {"mode": 755}
        if isinstance(fact, ShortFactBase):
            return fact.process_data(self.get_fact(fact.fact))
        return fact.default()


def work(request: "Request", tell: Telling) -> None:
    """Raises SoloError: ConvergeError when an operation fails, DataError for a template."""
    _listen()
    root = Path(request.root)
    ThisMachine.seconds, ThisMachine.native = request.operation_seconds, not request.stock
    bound = bind(root, request.role, request.stage, request.flags)
    declared = [check for one in bound for check in one.checks()]
    tell.event("declared", roles=[one.role.name for one in bound], checks=checks.to_json(declared))
    tell.hide([text for one in bound for text in secrets(one.role, one.data)])
    state = state_here(root, {}, BlankMachine if request.mode == "blank" else ThisHost)
    deploy.play(Part(bound, changing=_closing(request, tell)))
    with _context(state) as host:
        _declare_operations(root / "deploy.py", state)
        order = list(host.op_hash_order)
        tell.event("operations", names=[_name(state, one) for one in order])
        operations = _Operations(request, state, host, tell)
        for number, one in enumerate(order, 1):
            operations.one(one, number)
        if operations.changed:
            _machine(host).puts.on_disk()
            tell.event("again", operations=again(state, host, order))
    if known.changed:
        tell.event("slow", facts=known.changed)
    tell.event("done")


def _closing(request: "Request", tell: Telling) -> Any:
    def changing() -> None:
        if request.mode != "converge":
            return
        tell.event("changing")
        if (request.close_on_change or not look().open) and close_gate("a run is changing this machine"):
            tell.event("closed")

    return changing


def _declare_operations(path: Path, state: State) -> None:
    """Execute deploy.py as pyinfra does: its operations are declared now and run afterwards."""
    state.current_deploy_filename = state.current_exec_filename = str(path)
    try:
        code = compile(path.read_text(), str(path), "exec")
        exec(code, {"__file__": str(path), "__name__": "__main__"})  # noqa: S102 - the ops repo's own program
    except SoloError:
        raise
    except FileNotFoundError as error:
        raise ConvergeError(f"{error.filename or path} is not in the ops repo. Commit it.") from error
    except Exception as error:
        raise _named(error, "deploy.py") from error


@contextmanager
def _context(state: State) -> Iterator[Host]:
    """pyinfra's own context managers do not reset after an exception; this process ends then."""
    host = next(iter(state.inventory))
    state.current_stage = StateStage.Prepare
    with (
        ctx_state.use(state),
        ctx_inventory.use(state.inventory),
        ctx_config.use(state.config.copy()),
        ctx_host.use(host),
    ):
        yield host


class _Operations:
    """The operations of a run, one after the other."""

    def __init__(self, request: "Request", state: State, host: Host, tell: Telling) -> None:
        self._mode, self._state, self._host, self._tell = request.mode, state, host, tell
        self._waits: list[tuple[str, float]] = []
        self.changed = False
        """An operation has changed something."""
        state.is_executing = True
        state.current_stage = StateStage.Execute
        connector = _machine(host)
        connector.begins, connector.waited = tell.hurry, lambda *wait: self._waits.append(wait)
        connector.puts.waits = True

    def one(self, one: str, number: int) -> None:
        """One operation, converged or planned. Raises ConvergeError or DataError when it fails."""
        name = _name(self._state, one)
        self._tell.starting(number=number, name=name)
        self._waits.clear()
        _heard.lines.clear()
        began, cpu = time.monotonic(), _cpu()
        meta = self._state.get_op_data_for_host(self._host, one).operation_meta
        diff, problem = self._do(one, name, meta)
        changed = meta.is_complete() and meta.did_change()
        self.changed = self.changed or (changed and self._mode == "converge")
        times = {"began": round(began, 4), "seconds": round(time.monotonic() - began, 4)}
        if not (changed or problem or self._waits or _heard.lines):
            self._tell.unchanged(name=name, **times)
            return
        self._tell.ended(
            name=name,
            changed=changed,
            failed=problem is not None,
            **times,
            cpu=round(_cpu() - cpu, 4),
            waits=_longest(self._waits),
            output=_output(meta)[-_TAIL:] if problem else list(_heard.lines),
            diff=diff,
        )
        if problem:
            raise problem

    def _do(self, one: str, name: str, meta: Any) -> tuple[list[str], SoloError | None]:
        """What it would do, for a plan; why it failed."""
        try:
            if self._mode != "converge":
                from pyinfra_solo.would import would

                commands = _look(self._state, self._host, one)
                return [line for each in commands for line in would(each, blank=self._mode == "blank")], None
            if not self._run(one):
                return [], ConvergeError(f"The operation {name!r} failed: {_last_words(meta)}")
            _machine(self._host).puts.appear()
        except SoloError as error:
            return [], error
        except Exception as error:  # noqa: BLE001 - an operation is foreign code
            return [], _named(error, f"the operation {name!r}")
        return [], None

    def _run(self, one: str) -> bool:
        """As pyinfra's `run_host_op`, which is called when there is something to do."""
        data = self._state.get_op_data_for_host(self._host, one)
        generator = data.command_generator
        commands = generator()
        first = next(commands, None)
        if first is None:
            data.operation_meta.set_complete(True, [], CommandOutput([]))
            return True
        begun = iter([chain([first], commands)])
        data.command_generator = lambda: next(begun, None) or generator()
        return run_host_op(self._state, self._host, one)


def _machine(host: Host) -> ThisMachine:
    return cast("ThisMachine", host.connector)


def _cpu() -> float:
    """Seconds of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _longest(waits: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    ordered = sorted(waits, key=lambda wait: wait[1], reverse=True)[:_WAITS]
    return [{"what": what, "seconds": round(seconds, 4)} for what, seconds in ordered]


def _look(state: State, host: Host, one: str) -> list[Any]:
    """The commands that the operation would give. None is run, and it counts as done, so that what depends
    on it (`_if=it.did_change`) is looked at too."""
    data = state.get_op_data_for_host(host, one)
    commands = list(data.command_generator())
    data.operation_meta.set_complete(True, commands, CommandOutput([]))
    return commands


def again(state: State, host: Host, order: Sequence[str]) -> list[dict[str, Any]]:
    """A second look at every operation after a converge: what each would do again, or why that cannot be
    seen. Nothing is run, and nothing that was done the first time counts."""
    for one in order:
        meta = state.get_op_data_for_host(host, one).operation_meta
        vars(meta).clear()
        meta.__init__(one, is_change=None)  # type: ignore[misc]
    found = []
    for one in order:
        try:
            would = [_in_short(command) for command in _look(state, host, one)]
        except Exception as error:  # noqa: BLE001 - an operation is foreign code
            would = [f"cannot be looked at: {in_words(error)}"]
        if would:
            found.append({"name": _name(state, one), "would": would[:_TAIL]})
    return found


def _in_short(command: Any) -> str:
    """For a report, which is no place for arguments or contents: they may hold secrets."""
    if isinstance(command, FileUploadCommand):
        return f"put {command.dest}"
    if isinstance(command, StringCommand):
        return f"run {program(command)}"
    return f"call {getattr(getattr(command, 'function', command), '__name__', type(command).__name__)}"


def _name(state: State, one: str) -> str:
    """Its name alone: pyinfra's arguments may hold secrets."""
    return ", ".join(sorted(state.get_op_meta(one).names))


def _output(meta: Any) -> list[str]:
    return [line.line for line in meta._combined_output or ()]


def _last_words(meta: Any) -> str:
    lines = [line for line in _output(meta) if line.strip()]
    return lines[-1] if lines else "; ".join(_heard.lines[-2:]) or "it gave no reason"


def _named(error: Exception, where: str) -> SoloError:
    """A foreign exception, by its cause: what only a commit can mend in a template is data."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TemplateError) or "Error in template" in str(cause):
            return DataError(f"A template of {where} is invalid: {_short(error)}. Correct it and commit.")
        cause = cause.__cause__ or cause.__context__
    kind = "" if isinstance(error, (PyinfraError, SyntaxError)) else f"{type(error).__name__}: "
    return ConvergeError(f"{where} failed: {kind}{_short(error)}")


def _short(error: BaseException) -> str:
    return re.sub(r"\s+", " ", in_words(error))


class _Heard(logging.Handler):
    """pyinfra's own last warnings and errors: for a time-out they are the only reason there is."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m|^\s*\[@local\]\s*", "", record.getMessage())
        self.lines = [*self.lines[-9:], re.sub(r"\s+", " ", text)]


_heard = _Heard()


def _listen() -> None:
    log = logging.getLogger("pyinfra")
    log.addHandler(_heard)
    log.propagate = False
