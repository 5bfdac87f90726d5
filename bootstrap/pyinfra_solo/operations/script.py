"""Run an operation's program: in the process on this machine, or sent as text to any other.

A program runs as one child, so that its time-out ends all that it started, as one process group.
"""

import ast
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import FactProcessError

from pyinfra_solo.native import programs
from pyinfra_solo.operations import prelude

_END = "end-of-answer"
_HERE = ("@local", "@solo")
Value = TypeVar("Value")


class ProgramCommand(StringCommand):
    """A command that runs one of our programs, sent as text.

    interpreter: the words before the text. program: its name. shown: its name, its verb and their
    arguments, for plans.
    """

    def __init__(self, interpreter: Sequence[str], text: str, program: str, *words: str) -> None:
        called = [program, *words]
        super().__init__(*interpreter, *map(QuoteString, [text, *called]))
        self.program = program
        self.shown = shlex.join(called)


class Program:
    """The program of an operation: its module `program`, for `prelude.main` to run.

    parts: modules of which the program imports names.
    """

    def __init__(self, module: ModuleType, *parts: ModuleType) -> None:
        self._module, self._parts = module, parts
        self.name = module.__name__.split(".")[-2]

    @cached_property
    def source(self) -> str:
        """Join the prelude, the parts and the program, without their imports of this package."""
        return "\n\n".join(map(_text, (prelude, *self._parts, self._module)))

    def command(self, verb: str, arguments: Mapping[str, Any]) -> ProgramCommand:
        """Make the command for a verb. The arguments show in `ps`: no secret."""
        python = sys.executable if getattr(host, "name", "") in _HERE else "python3"
        # -I and -S: no file of the user's, the folder's or site-packages takes part.
        interpreter = (python, "-I", "-S", "-c")
        return ProgramCommand(interpreter, self.source, self.name, verb, *prelude.encode(arguments))

    def call(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Call a verb in this process, and return its answer. Its children count as a native answer's."""
        prelude.before_child, prelude.after_child = programs.before_child, programs.after_child
        return getattr(self._module, verb)(**arguments)


class ProgramFact(FactBase[Value]):
    """A fact that a verb of a program answers, with a value of the type of its default."""

    program: ClassVar[Program]
    verb: ClassVar[str] = "check"

    @classmethod
    def native(cls, arguments: Mapping[str, Any] | None = None) -> Any:
        """Answer on this machine, in the process (`native.registry`)."""
        return cls()._checked(cls.program.call(cls.verb, arguments or {}))

    def command(self, arguments: Mapping[str, Any] | None = None) -> StringCommand:
        # A command without output would have the default as its value, "nothing to do" (pyinfra 3.10).
        return StringCommand(self.program.command(self.verb, arguments or {}), "&&", "echo", _END)

    def process(self, output: list[str]) -> Value:
        try:
            answer, end = output[-2:]
            value = json.loads(answer)
        except ValueError:
            end = ""
        if end != _END:
            raise FactProcessError(f"{self.program.name} {self.verb} gave no answer: {output[:-1]}")
        return self._checked(value)

    def _checked(self, value: Any) -> Value:
        """Return a value of the right type. Raises FactProcessError."""
        kind = type(self.default())
        texts = value if kind is list and isinstance(value, list) else []
        if not isinstance(value, kind) or not all(isinstance(text, str) for text in texts):
            raise FactProcessError(
                f"{self.program.name} {self.verb} answered {value!r}, not a {kind.__name__}"
            )
        answer: Value = value
        return answer


@cache
def _text(module: ModuleType) -> str:
    """Read a module's text without its imports of this package, and of __future__ below the prelude."""
    text = Path(str(module.__file__)).read_text()
    is_prelude = module is prelude
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and (
            (node.module or "").startswith("pyinfra_solo") or (node.module == "__future__" and not is_prelude)
        ):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (
                (node.end_lineno or node.lineno) - node.lineno + 1
            )
    return "\n".join(lines)


def failure(message: str) -> StringCommand:
    """Make a command that fails with `message`: what an operation yields when it cannot be done.

    An exception out of an operation ends pyinfra's run as an internal error (pyinfra 3.10).
    """
    return StringCommand("sh", "-c", QuoteString('echo "$1" >&2; exit 1'), "sh", QuoteString(message))
