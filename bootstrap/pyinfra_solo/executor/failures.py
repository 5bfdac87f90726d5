"""Translate foreign exceptions into SoloErrors; keep pyinfra's last log lines for messages."""

import logging
import re
import sys
import traceback
from pathlib import Path

from jinja2 import TemplateError
from pyinfra.api.exceptions import NestedOperationError, PyinfraError
from pyinfra.context import ctx_state

from pyinfra_solo.errors import ConvergeError, DataError, SoloError
from pyinfra_solo.system import disk
from pyinfra_solo.system.text import in_words, one_line, place_in


def translate(error: BaseException, where: str, root: Path | None = None) -> SoloError:
    """Return a foreign exception as DataError, when a template caused it, or as ConvergeError.

    root: of the ops repo, whose file and line the message names; None: found by pyinfra's state or deploy.py.
    The exception is its `__cause__`: the executor writes that one's traceback to the journal.
    """
    found = _translated(error, where, root)
    found.__cause__ = error
    return found


def _translated(error: BaseException, where: str, root: Path | None) -> SoloError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TemplateError) or "Error in template" in str(cause):
            place = _place(cause, root)
            reason = re.sub(r"<_io\.\w+ object at 0x[0-9a-f]+>", "a text", in_words(error))
            return DataError(f"A template of {where} is invalid: {reason}{place}. Correct it and commit.")
        cause = cause.__cause__ or cause.__context__
    if full := disk.problem(error):
        return ConvergeError(f"{where} failed: {full} Make room, or make it writable{_place(error, root)}.")
    if isinstance(error, SystemExit):
        return ConvergeError(
            f"{where} failed: it called sys.exit({error.code!r}){_place(error, root)}. Raise an error instead."
        )
    kind = "" if isinstance(error, (PyinfraError, SyntaxError)) else f"{type(error).__name__}: "
    reason = in_words(error)
    if reason == "No hosts remaining!" and pyinfra_log.lines:  # a fact or a connector failed, and logged why
        reason = "; ".join(pyinfra_log.lines[-2:])
    return ConvergeError(f"{where} failed: {kind}{reason}{_place(error, root)}")


def _place(error: BaseException, root: Path | None) -> str:
    """Return ` (FILE:LINE)` of the last frame in the ops repo or in a template; "" without one."""
    if isinstance(error, SyntaxError):  # its text has its own place
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    deploy = [Path(frame.filename).parent for frame in frames if Path(frame.filename).name == "deploy.py"]
    cwd = ctx_state.get().cwd if ctx_state.isset() else None
    return place_in(root or (Path(cwd) if cwd else next(iter(deploy), Path("/nowhere"))), error)


class PyinfraLog(logging.Handler):
    """Keeps pyinfra's last ten warnings and errors: for a time-out they are the only reason."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    @property
    def cause(self) -> Exception | None:
        """The last exception that pyinfra has caught and logged, in words of its own that name no place."""
        return next((line.cause for line in reversed(self.lines) if isinstance(line, _Caught)), None)

    def emit(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if record.getMessage().startswith("Traceback "):  # its last line comes as a record of its own
            return
        text = re.sub(r"\x1b\[[0-9;]*m|^\s*\[@local\]\s*", "", record.getMessage())
        gevents_own = isinstance(error, TimeoutError) and not error.args  # pyinfra's words say more
        if isinstance(error, Exception) and not (isinstance(error, NestedOperationError) or gevents_own):
            self.lines = [*self.lines[-9:], _Caught(one_line(text), error)]
        else:
            self.lines = [*self.lines[-9:], one_line(text)]


class _Caught(str):
    """A line about an exception that pyinfra has caught."""

    cause: Exception

    def __new__(cls, text: str, cause: Exception) -> "_Caught":
        line = super().__new__(cls, text)
        line.cause = cause
        return line


pyinfra_log = PyinfraLog()


def capture_log() -> None:
    """Send pyinfra's log to `pyinfra_log`, and nowhere else."""
    log = logging.getLogger("pyinfra")
    log.addHandler(pyinfra_log)
    log.propagate = False
