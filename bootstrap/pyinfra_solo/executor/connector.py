"""Run pyinfra's commands on this machine: each one ends in time, and its output is kept.

pyinfra's own connector has no time-out, loses output that is not UTF-8, and waits for a daemon that
holds a command's output open (each seen in pyinfra 3.10.0). Plain commands run in this process (`native`).
"""

import base64
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from shutil import which
from typing import Any

from pyinfra.api import Host, State
from pyinfra.api.arguments import pop_global_arguments
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import FactError
from pyinfra.api.util import get_file_io
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command, make_unix_command_for_host

from pyinfra_solo.executor import shell
from pyinfra_solo.executor.arguments import (
    NOBODY,
    account_of,
    below,
    is_among,
    is_this_account,
    runs_as_this_process,
    uid_of,
)
from pyinfra_solo.native import UNKNOWN, commands, in_place
from pyinfra_solo.native.files import forget_names, read
from pyinfra_solo.native.held import RefusedError, holding
from pyinfra_solo.native.pending_files import PendingFiles
from pyinfra_solo.native.registry import answer_to
from pyinfra_solo.operations.script import ProgramCommand
from pyinfra_solo.system.text import in_words, printable


class LocalConnector(BaseConnector):
    """Runs commands here."""

    handles_execution = True
    name = "@local"

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        self.pending = PendingFiles()
        self.timeout = 600.0
        """Seconds, for each command that sets no `_timeout` of its own."""
        self.native = True
        """False: every fact and every command runs by a shell."""
        self._fact = ""
        """Name of the fact whose command runs, or ''."""
        self.last_failure = ""
        """The message of the last command that failed, for one that printed nothing."""
        self.before_child: Callable[[], None] = lambda: None
        """Called before a child process is started."""
        self.after_child: Callable[[str, float], None] = lambda _name, _seconds: None
        """Called with the child's program, or with the fact it was run for, and its seconds."""

    @classmethod
    def make_names_data(cls, name: str) -> Iterator[tuple[str, dict[Any, Any], list[str]]]:  # noqa: ARG003
        yield cls.name, {}, [cls.name]

    def answer(self, fact: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the fact's value, or UNKNOWN when it has no native answer here."""
        self.pending.rename_into_place()
        if args and not kwargs and fact.__module__ == "pyinfra.facts.files":
            kwargs, args = {"path": args[0]}, args[1:]
        if not self.native or args or self.state.print_fact_input or not (answer := answer_to(fact)):
            return UNKNOWN
        arguments = self.host.current_op_global_arguments
        if arguments is None:  # outside of an operation: from deploys, data and config
            arguments, _ = pop_global_arguments(self.state, self.host, dict(kwargs))
        if not runs_as_this_process(arguments) or any(key.startswith("_") for key in kwargs):
            return UNKNOWN
        return answer(**kwargs)

    def get_fact(self, by_shell: Callable[..., Any], fact: type, *args: Any, **kwargs: Any) -> Any:
        """Return the fact's value, by its native answer or by `by_shell`, pyinfra's own get_fact."""
        value = self.answer(fact, args, kwargs)
        if value is not UNKNOWN:
            return value
        outer, self._fact = self._fact, fact.__name__
        try:
            return by_shell(fact, *args, **kwargs)
        finally:
            self._fact = outer

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run a command; see pyinfra.connectors.base.BaseConnector.

        A time-out is a failure whose last line of output says so: for a TimeoutError pyinfra prints only
        `_timeout`, which is None for our own limit (3.10.0).
        """
        if print_input:
            self._print(f">>> {command}")
        if (done := self._run_here(command, arguments)) is not None:
            return done
        self.before_child()
        self.pending.sync()
        began = time.monotonic()
        try:
            success, output = self._run(command, arguments)
        finally:
            name = f"fact {self._fact}" if self._fact else program(command)
            self.after_child(name, time.monotonic() - began)
            forget_names()
        if print_output:
            for line in output:
                self._print(line.line)
        return success, output

    def _run_here(
        self, command: StringCommand, arguments: Mapping[str, Any]
    ) -> tuple[bool, CommandOutput] | None:
        """Run a plain file command in this process, with `--no-native` too; None: a shell must run it.

        By a shell it would be open to another account that may write the folder (`native.commands`).
        """
        if not is_this_account(arguments):
            return None
        self.pending.timeout = arguments.get("_timeout") or self.timeout
        try:
            if not commands.run(_raw(command), self.pending, arguments.get("_chdir") or os.curdir):
                return None
        except OSError as error:
            output = CommandOutput([OutputLine("stderr", f"{program(command)}: {in_words(error)}")])
            codes = arguments.get("_success_exit_codes") or [0]
            return 1 in codes and not isinstance(error, RefusedError), output
        return 0 in (arguments.get("_success_exit_codes") or [0]), CommandOutput([])

    def _print(self, line: str) -> None:
        """Print for pyinfra's own command, under -v."""
        import click

        click.echo(f"{self.host.print_prefix}{printable(line)}", err=True)

    def _run(self, command: StringCommand, arguments: dict[str, Any]) -> tuple[bool, CommandOutput]:
        timeout = arguments.pop("_timeout", None) or self.timeout
        stdin = arguments.pop("_stdin", None)
        success_codes = arguments.pop("_success_exit_codes", None) or [0]
        arguments.pop("_get_pty", None)
        with ExitStack() as stack:
            words = self._words(command, arguments, stack)
            try:
                status, output = shell.run(words, timeout=timeout, stdin=stdin, is_fact=bool(self._fact))
            except shell.TooMuchOutputError:
                raise FactError(
                    f"The fact {self._fact} printed more than {shell.MAX_FACT // 1024**2} MiB, the most that is"
                    " read. Ask for less, or do the work in a command."
                ) from None
        success = is_among(status, success_codes)
        if not success:
            self.last_failure = f"`{program(command)}` ended with exit status {status} and printed nothing"
        return success, output

    def _words(self, command: StringCommand, arguments: dict[str, Any], stack: ExitStack) -> list[str]:
        """Return an argv that runs pyinfra's own text for the command and its global arguments.

        It names the text by reference, valid until `stack` closes. So does the text, where pyinfra hands
        the command to a shell of an account that can be given a file.
        """
        name = arguments.get("_shell_executable", "sh")
        account = account_of(arguments)
        uid = uid_of(account)
        if name and uid != NOBODY:
            inside = {key: arguments.pop(key, None) for key in ("_env", "_chdir")}
            script = make_unix_command(command, **inside, _shell_executable=None).get_raw_value()
            login = bool(arguments.get("_use_sudo_login"))
            words = [name, *stack.enter_context(shell.by_reference(script, name, uid=uid, login=login))]
            if words[0] == "sh" and not account:
                return words
            command = StringCommand(name, *map(QuoteString, words[1:]))
            arguments = {**arguments, "_shell_executable": None}
        text = make_unix_command_for_host(self.state, self.host, command, **arguments).get_raw_value()
        return ["/bin/sh", *stack.enter_context(shell.by_reference(text))]

    def check_can_rsync(self) -> None:
        """Accept: an operation of the same run may install rsync, so `rsync` itself checks."""

    def rsync(
        self,
        src: str,
        dest: str,
        flags: Iterable[str],
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Run rsync(1), in pyinfra's own words. Raises OSError."""
        if not which("rsync"):
            raise FileNotFoundError(
                'rsync is not installed. Put packages.installed(packages=["rsync"]) before files.rsync.'
            )
        success, output = self.run_shell_command(
            StringCommand("rsync", " ".join(flags), src, dest), print_output, print_input, **arguments
        )
        if not success:
            raise OSError(output.stderr)
        return True

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,  # noqa: ARG002
        print_output: bool = False,  # noqa: ARG002
        print_input: bool = False,  # noqa: ARG002
        **arguments: Any,
    ) -> bool:
        """Write a file by rename (`native.pending_files`). Raises OSError."""
        with get_file_io(filename_or_io) as opened:
            data = opened.read()
        data = data.encode() if isinstance(data, str) else data
        if is_this_account(arguments):
            return self._put(remote_filename, data, arguments)
        # Another account gets it through stdin: a temporary file with a secret would be readable on the way.
        script = (
            'if [ -L "$1" ] && [ ! -e "$1" ]; then echo "not written through a link to nothing: $1" >&2; exit 1; fi; '
            'umask 077; cat > "$1"'
        )
        command = StringCommand("sh -c", QuoteString(script), "sh", QuoteString(remote_filename))
        success, output = self.run_shell_command(command, **{**arguments, "_stdin": data})
        if not success:
            raise OSError(output.stderr)
        return True

    def _put(self, path: str, data: bytes, arguments: Mapping[str, Any]) -> bool:
        """Write a file where `cd` and cp(1) would, whose exit status is 0 or 1. Raises OSError."""
        codes = arguments.get("_success_exit_codes") or [0]
        path = below(arguments.get("_chdir"), path)
        self.pending.timeout = arguments.get("_timeout") or self.timeout
        try:
            self.pending.put(path, data)
        except OSError as error:
            if 1 in codes:
                return True
            if error.errno:
                error.filename = path  # not the temporary file, and write(2) names none
            raise
        if 0 not in codes:
            raise OSError(f"{path} was written, but 0 is not in _success_exit_codes.")
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,  # noqa: ARG002
        print_output: bool = False,  # noqa: ARG002
        print_input: bool = False,  # noqa: ARG002
        **arguments: Any,
    ) -> bool:
        """Read a regular file, then write its copy. Raises OSError; then the copy is as it was."""
        self.pending.rename_into_place()
        if is_this_account(arguments):
            data = read(below(arguments.get("_chdir"), remote_filename))
        else:
            data = self._read_as_another_account(remote_filename, arguments)
        if isinstance(filename_or_io, str | os.PathLike):
            with holding(os.fspath(filename_or_io)) as copy:
                copy.check_names()
                in_place.write(copy, data, mode=0o666)
        else:
            with get_file_io(filename_or_io, "wb") as opened:
                opened.write(data)
        return True

    def _read_as_another_account(self, path: str, arguments: Mapping[str, Any]) -> bytes:
        """Raise OSError, also for a file that is longer than a command's output may be."""
        command = StringCommand("base64", QuoteString(path), "&& echo .")
        success, output = self.run_shell_command(command, **arguments)
        if not success:
            raise OSError(output.stderr)
        *lines, end = output.stdout_lines or [""]
        if end != ".":
            raise OSError(f"{path} is too long to be read as another account. Read it as root.")
        return base64.b64decode("".join(lines))


def _raw(command: StringCommand | str) -> str:
    """Return the command's text. A fact's command may be a plain string."""
    return command if isinstance(command, str) else command.get_raw_value()


def program(command: StringCommand | str) -> str:
    """Return the name of the command's program or script, alone: arguments may hold secrets."""
    if isinstance(command, ProgramCommand):
        return command.program
    first = re.match(r"[\w./+-]+(?=\s|$)", _raw(command).lstrip())
    return first[0].rpartition("/")[2] if first else "sh"
