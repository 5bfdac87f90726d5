"""Translate foreign exceptions into SoloErrors; keep pyinfra's last log lines for messages."""

import logging
import re

from jinja2 import TemplateError
from pyinfra.api.exceptions import PyinfraError

from pyinfra_solo.errors import ConvergeError, DataError, SoloError
from pyinfra_solo.system.text import in_words, one_line


def translate(error: Exception, where: str) -> SoloError:
    """Return a foreign exception as DataError, when a template caused it, or as ConvergeError."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TemplateError) or "Error in template" in str(cause):
            return DataError(f"A template of {where} is invalid: {in_words(error)}. Correct it and commit.")
        cause = cause.__cause__ or cause.__context__
    kind = "" if isinstance(error, (PyinfraError, SyntaxError)) else f"{type(error).__name__}: "
    return ConvergeError(f"{where} failed: {kind}{in_words(error)}")


class PyinfraLog(logging.Handler):
    """Keeps pyinfra's last ten warnings and errors: for a time-out they are the only reason."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m|^\s*\[@local\]\s*", "", record.getMessage())
        self.lines = [*self.lines[-9:], one_line(text)]


pyinfra_log = PyinfraLog()


def capture_log() -> None:
    """Send pyinfra's log to `pyinfra_log`, and nowhere else."""
    log = logging.getLogger("pyinfra")
    log.addHandler(pyinfra_log)
    log.propagate = False
