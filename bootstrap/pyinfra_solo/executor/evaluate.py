"""Evaluate operations without executing them: before the first change, for a plan, and after a converge."""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, cast

from jinja2 import TemplateError, UndefinedError
from pyinfra.api import FileUploadCommand, Host, State, StringCommand
from pyinfra.connectors.util import CommandOutput

from pyinfra_solo import protocol
from pyinfra_solo.deploy import module_of
from pyinfra_solo.errors import SoloError
from pyinfra_solo.executor.connector import program
from pyinfra_solo.executor.failures import translate
from pyinfra_solo.system.text import in_words

_OURS_AND_PYINFRAS = ("pyinfra.", "pyinfra_solo.")
_UNDEFINED = re.compile(r"'\w+' is undefined")
_OF_THE_RUNNING_OPERATION = (
    "in_op",
    "current_op_hash",
    "current_op_global_arguments",
    "current_op_deploy_data",
)
"""Attributes of pyinfra's host that each operation sets, and resets at its end (pyinfra 3.10)."""
_MISSING = re.compile(r"No such (?:file|directory): (.+)")
_CALLS = "pyinfra.operations.python"
"""Its operations run any code, which may set what later ones read."""
UNKNOWN_CHANGE = StringCommand("true")
"""The command of an operation that cannot be evaluated yet: it may change something."""


class UnknownOutput(CommandOutput):
    """The output of an operation that was evaluated and not executed: empty, and it notes that it was read."""

    was_read: ClassVar[bool] = False
    """Since the last evaluation began."""

    @property
    def stdout_lines(self) -> list[str]:
        type(self).was_read = True
        return []

    @property
    def stderr_lines(self) -> list[str]:
        type(self).was_read = True
        return []


def evaluate(
    state: State,
    host: Host,
    one: str,
    *,
    every_command: bool = False,
    generator: Callable[[], Iterator[Any]] | None = None,
) -> list[Any]:
    """Return the first command of the operation, or every one, and execute none.

    The operation counts as done, so that what depends on it (`_if=it.did_change`) is evaluated too. With
    every_command, its own code after each command runs as well. generator: of its commands; None: its own.
    """
    UnknownOutput.was_read = False
    data = state.get_op_data_for_host(host, one)
    commands_of = cast("Generator[Any, None, None]", (generator or data.command_generator)())
    commands = list(islice(commands_of, None if every_command else 1))
    commands_of.close()
    data.operation_meta.set_complete(True, commands, UnknownOutput([]))
    return commands


def forget(state: State, host: Host, order: Sequence[str]) -> None:
    """Make the operations undone: they have no result."""
    for one in order:
        meta = state.get_op_data_for_host(host, one).operation_meta
        vars(meta).clear()
        meta.__init__(one, is_change=None)  # type: ignore[misc]


def require_no_mistake(state: State, host: Host, order: Sequence[str]) -> None:
    """Evaluate operations that are still to come. Raises MistakeError for the first that cannot succeed.

    What an operation reads may be different once earlier ones have run: facts, their output, files, what a
    `python.call` sets, the conditions of `_if`. So an error counts only when none of these can be its
    cause; any other operation is evaluated when its turn comes. Of an operation of the ops repo only the
    first command is evaluated: its code may rely on what that command does.
    """
    root, after_call = Path(state.cwd or ".").resolve(), False
    with _undone(state, host, order):
        for one in order:
            data = state.get_op_data_for_host(host, one)
            generator = getattr(data.command_generator, "__wrapped__", data.command_generator)
            module = module_of(generator)
            foreign = not module.startswith(_OURS_AND_PYINFRAS)
            with _facts_counted(host) as asked:
                try:
                    evaluate(state, host, one, every_command=not foreign, generator=generator)
                except (Exception, SystemExit) as error:
                    reads = bool(asked or after_call or UnknownOutput.was_read)
                    conditional = data.global_arguments.get("_if")
                    if not conditional and _is_certain(error, root, reads=reads, foreign=foreign):
                        raise MistakeError(one, name_of(state, one), error) from error
                    data.operation_meta.set_complete(True, [UNKNOWN_CHANGE], UnknownOutput([]))
            after_call = after_call or module == _CALLS


class MistakeError(Exception):
    """An operation that cannot succeed: one is pyinfra's hash of it, reason the error to report."""

    def __init__(self, one: str, name: str, error: BaseException) -> None:
        super().__init__(name)
        self.one = one
        self.reason = error if isinstance(error, SoloError) else translate(error, f"the operation {name!r}")


@contextmanager
def _undone(state: State, host: Host, order: Sequence[str]) -> Iterator[None]:
    """Evaluate as if pyinfra executed: `_if` counts. Afterwards all is as it was, also in an operation."""
    metas = [state.get_op_data_for_host(host, one).operation_meta for one in order]
    before = state.is_executing, [dict(vars(meta)) for meta in metas]
    running = {name: getattr(host, name) for name in _OF_THE_RUNNING_OPERATION}
    state.is_executing = True
    forget(state, host, order)
    try:
        yield
    finally:
        state.is_executing = before[0]
        vars(host).update(running)
        for meta, values in zip(metas, before[1], strict=True):
            vars(meta).clear()
            vars(meta).update(values)


@contextmanager
def _facts_counted(host: Host) -> Iterator[list[Any]]:
    """Give the facts that are asked for in the block."""
    asked: list[Any] = []
    get_fact = host.get_fact

    def counted(fact: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(fact)
        return get_fact(fact, *args, **kwargs)

    vars(host)["get_fact"] = counted
    try:
        yield asked
    finally:
        del vars(host)["get_fact"]


def _is_certain(error: BaseException, root: Path, *, reads: bool, foreign: bool) -> bool:
    """Tell whether the operation fails whatever earlier operations do.

    reads: it has read what they may change. foreign: it is one of the ops repo's own.
    """
    chain = _chain(error)
    if undefined := next((one for one in chain if isinstance(one, UndefinedError)), None):
        return bool(_UNDEFINED.search(str(undefined)))
    if any(isinstance(one, TemplateError) for one in chain):
        return True
    if any(type(one) is NameError for one in chain):
        return not reads
    if missing := _missing_file(chain):
        return not foreign and missing.is_relative_to(root)
    return not (reads or foreign or any(isinstance(one, OSError) for one in chain))


def waits_for_others(error: BaseException, root: Path) -> bool:
    """Tell whether the operation cannot be planned before earlier operations have run."""
    missing = _missing_file(_chain(error))
    return UnknownOutput.was_read or bool(missing and not missing.is_relative_to(root.resolve()))


def _chain(error: BaseException) -> Sequence[BaseException]:
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    return chain


def _missing_file(chain: Sequence[BaseException]) -> Path | None:
    """Return the file or folder that is not there. pyinfra's own error has it in its text only."""
    for one in chain:
        if isinstance(one, FileNotFoundError) and isinstance(one.filename, str):
            return Path(one.filename).resolve()
        if isinstance(one, OSError) and (found := _MISSING.fullmatch(str(one))):
            return Path(found[1]).resolve()
    return None


def check_idempotence(state: State, host: Host, order: Sequence[str]) -> list[protocol.NotIdempotent]:
    """Evaluate every operation once more after a converge; return those that would change something.

    Nothing is executed, and changes of the first time count for nothing.
    """
    forget(state, host, order)
    found = []
    for one in order:
        try:
            commands = [_in_short(command) for command in evaluate(state, host, one)]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an operation is foreign code
            # What an earlier operation printed the first time is not known now.
            commands = [] if UnknownOutput.was_read else [f"cannot be evaluated: {in_words(error)}"]
        if commands:
            found.append(protocol.NotIdempotent(name=name_of(state, one), commands=commands))
    return found


def _in_short(command: Any) -> str:
    """Describe a command without its arguments and contents: a report must not hold secrets."""
    if isinstance(command, FileUploadCommand):
        return f"put {command.dest}"
    if isinstance(command, StringCommand):
        return f"run {program(command)}"
    return f"call {getattr(getattr(command, 'function', command), '__name__', type(command).__name__)}"


def name_of(state: State, one: str) -> str:
    """Return the operation's name, without pyinfra's arguments: they may hold secrets."""
    return ", ".join(sorted(state.get_op_meta(one).names))
