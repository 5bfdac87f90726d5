"""Evaluate operations without executing them: before the first change, for a plan, and after a converge."""

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, cast

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
_UNKNOWN_CHANGE = StringCommand("true")
"""The command of an operation that cannot be evaluated yet: it may change something."""


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
    data = state.get_op_data_for_host(host, one)
    commands_of = cast("Generator[Any, None, None]", (generator or data.command_generator)())
    commands = list(islice(commands_of, None if every_command else 1))
    commands_of.close()
    data.operation_meta.set_complete(True, commands, CommandOutput([]))
    return commands


def forget(state: State, host: Host, order: Sequence[str]) -> None:
    """Make the operations undone: they have no result."""
    for one in order:
        meta = state.get_op_data_for_host(host, one).operation_meta
        vars(meta).clear()
        meta.__init__(one, is_change=None)  # type: ignore[misc]


def require_no_mistake(state: State, host: Host, order: Sequence[str]) -> None:
    """Evaluate operations that are still to come. Raises MistakeError for the first that cannot succeed.

    A fact can have another value once earlier operations have run, and so can a file that they write. So
    an error counts only when no fact and no such file can be its cause; any other operation is evaluated
    when its turn comes. Of an operation of the ops repo only the first command is evaluated: its code may
    rely on what that command does.
    """
    root = Path(state.cwd or ".").resolve()
    with _undone(state, host, order):
        for one in order:
            data = state.get_op_data_for_host(host, one)
            generator = getattr(data.command_generator, "__wrapped__", data.command_generator)
            foreign = not module_of(generator).startswith(_OURS_AND_PYINFRAS)
            with _facts_counted(host) as asked:
                try:
                    evaluate(state, host, one, every_command=not foreign, generator=generator)
                except (Exception, SystemExit) as error:
                    if _is_certain(error, root, independent=not (asked or foreign)):
                        raise MistakeError(one, name_of(state, one), error) from error
                    data.operation_meta.set_complete(True, [_UNKNOWN_CHANGE], CommandOutput([]))


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


def _is_certain(error: BaseException, root: Path, *, independent: bool) -> bool:
    """Tell whether the operation fails whatever earlier operations do. independent: it asked for no fact."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    if undefined := next((one for one in chain if isinstance(one, UndefinedError)), None):
        return independent or bool(_UNDEFINED.search(str(undefined)))
    if any(isinstance(one, (TemplateError, NameError, ImportError, SyntaxError)) for one in chain):
        return True
    if missing := next((one for one in chain if isinstance(one, OSError)), None):
        name = missing.filename or str(missing).removeprefix("No such file: ")  # pyinfra's has no filename
        return Path(str(name)).resolve().is_relative_to(root)
    return independent


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
            commands = [f"cannot be evaluated: {in_words(error)}"]
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
