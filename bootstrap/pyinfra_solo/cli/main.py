"""Run the process `pyinfra-solo`: signals, exit statuses, data on stdout, messages on stderr."""

import io
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import click

from pyinfra_solo.cli import gate, inspect, run, setup  # noqa: F401 - adds their commands
from pyinfra_solo.cli.common import command, print_json, printed
from pyinfra_solo.errors import SoloError, UsageError
from pyinfra_solo.system.text import one_line, printable


class InterruptedRunError(SoloError):
    """A signal stopped the run. The exit status is 128 + its number, as in a shell: 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(f"The run was stopped by {signal.Signals(number).name}.")
        self.exit_code = 128 + number


def main() -> NoReturn:
    """Run the command line and exit. A failure is one line on stderr, and the exit status of its kind."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _stop)
    try:
        sys.exit(command.main(prog_name="pyinfra-solo", standalone_mode=False) or 0)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(file=shown)
        _to_stderr(shown.getvalue())
        _json_if_asked(error.format_message(), UsageError.exit_code)
        sys.exit(UsageError.exit_code)
    except SoloError as error:
        _fail(error)
    except Exception as error:  # noqa: BLE001 - Python's own traceback may hold what moves a terminal
        if isinstance(error, PermissionError) and os.geteuid() != 0:
            _fail(UsageError(f"{error.filename}: {error.strerror}. Run it as root."))
        _to_stderr(traceback.format_exc())
        _fail(
            SoloError(
                f"It failed in a way that has no name: {type(error).__name__}: {error}. Report it, with the lines above."
            )
        )
    finally:
        _drop_unflushed_stderr()


def _fail(error: SoloError) -> NoReturn:
    _to_stderr(f"pyinfra-solo: {one_line(str(error))}")
    _json_if_asked(str(error), error.exit_code)
    sys.exit(error.exit_code)


def _to_stderr(text: str) -> None:
    with suppress(OSError):  # stderr is closed or full; the exit status is what counts
        click.echo("\n".join(map(printable, text.rstrip("\n").split("\n"))), err=True)


def _json_if_asked(error: str, exit_code: int) -> None:
    if "--json" in sys.argv[1:] and not printed and "'--json'" not in error:
        print_json({"error": error, "exit_code": exit_code})


def _drop_unflushed_stderr() -> None:
    """Drop unflushed stderr: a failing flush at exit would turn the exit status into 120 (Py_FinalizeEx)."""
    try:
        if sys.stderr:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _stop(number: int, _frame: object) -> None:
    raise InterruptedRunError(number)
