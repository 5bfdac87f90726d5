"""Run pyinfra's commands on this machine: each one ends in time, and its output is kept.

pyinfra's own connector has no time-out, loses output that is not UTF-8, and waits for a daemon that
holds a command's output open (each seen in pyinfra 3.10.0). Plain commands run in this process (`native`).
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyinfra.api import Host, State
from pyinfra.api.arguments import pop_global_arguments
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.util import get_file_io
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import CommandOutput, make_unix_command_for_host

from pyinfra_solo.executor.shell import CUT, run_script
from pyinfra_solo.native import UNKNOWN, commands
from pyinfra_solo.native.files import forget_names
from pyinfra_solo.native.pending_files import PendingFiles
from pyinfra_solo.native.registry import answer_to, off_reason
from pyinfra_solo.operations.script import ProgramCommand
from pyinfra_solo.system.text import printable

_OTHER_ACCOUNT = (
    "_sudo",
    "_su_user",
    "_doas",
    "_dzdo",
    "_use_sudo_login",
    "_use_su_login",
    "_preserve_sudo_env",
)


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
        self.runs_fact = False
        """True while a fact's command runs. Truncated output is then a failure: its value would be wrong."""
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

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run a command; see pyinfra.connectors.base.BaseConnector.

        A time-out is a failure whose last line of output says so: for a TimeoutError pyinfra prints only
        `_timeout`, which is None for our own limit (3.10.0).
        """
        if print_input:
            self._print(f">>> {command}")
        plain = self.native and not off_reason() and runs_as_this_process(arguments)
        if plain and commands.run(_raw(command), self.pending):
            return True, CommandOutput([])
        self.before_child()
        self.pending.sync()
        began = time.monotonic()
        try:
            success, output = self._run(command, arguments)
        finally:
            self.after_child(program(command), time.monotonic() - began)
            forget_names()
        if print_output:
            for line in output:
                self._print(line.line)
        return success, output

    def _print(self, line: str) -> None:
        """Print for pyinfra's own command, under -v."""
        import click

        click.echo(f"{self.host.print_prefix}{printable(line)}", err=True)

    def _run(self, command: StringCommand, arguments: dict[str, Any]) -> tuple[bool, CommandOutput]:
        timeout = arguments.pop("_timeout", None) or self.timeout
        stdin = arguments.pop("_stdin", None)
        success_codes = arguments.pop("_success_exit_codes", None) or [0]
        arguments.pop("_get_pty", None)
        environment, folder, shell = None, None, "/bin/sh"
        if any(arguments.get(key) for key in _OTHER_ACCOUNT):
            script = make_unix_command_for_host(self.state, self.host, command, **arguments).get_raw_value()
        else:
            script = _raw(command)
            environment, folder = _environment(arguments.get("_env")), arguments.get("_chdir")
            shell = arguments.get("_shell_executable") or shell
        code, output = run_script(
            script, shell=shell, timeout=timeout, stdin=stdin, environment=environment, folder=folder
        )
        is_cut = self.runs_fact and CUT in output.stderr_lines
        return code in success_codes and not is_cut, output

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
        if not any(arguments.get(key) for key in _OTHER_ACCOUNT):
            try:
                self.pending.put(remote_filename, data)
            except OSError as error:
                error.filename = remote_filename  # not the temporary file, and write(2) names none
                raise
            return True
        # Another account gets it through stdin: a temporary file with a secret would be readable on the way.
        command = StringCommand("umask 077; cat >", QuoteString(remote_filename))
        success, output = self.run_shell_command(command, **{**arguments, "_stdin": data})
        if not success:
            raise OSError(output.stderr)
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,  # noqa: ARG002
        print_output: bool = False,  # noqa: ARG002
        print_input: bool = False,  # noqa: ARG002
        **_arguments: Any,
    ) -> bool:
        """Read a file; see pyinfra.connectors.base.BaseConnector. Raises OSError."""
        self.pending.rename_into_place()
        with get_file_io(filename_or_io, "wb") as opened:
            opened.write(Path(remote_filename).read_bytes())
        return True


def runs_as_this_process(arguments: Mapping[str, Any]) -> bool:
    """Tell whether these global arguments leave the command in this process's environment.

    That is its account, folder and variables, with /bin/sh, no stdin, and 0 for success.
    """
    return (
        not any(map(arguments.get, _CHANGES_PROCESS))
        and arguments.get("_shell_executable") in _SHELLS
        and arguments.get("_success_exit_codes") in _SUCCESS
    )


_CHANGES_PROCESS = (*_OTHER_ACCOUNT, "_env", "_chdir", "_stdin")
_SHELLS = (None, "sh", "/bin/sh")
_SUCCESS = (None, [0])


def _raw(command: StringCommand | str) -> str:
    """Return the command's text. A fact's command may be a plain string."""
    return command if isinstance(command, str) else command.get_raw_value()


def program(command: StringCommand | str) -> str:
    """Return the name of the command's program or script, alone: arguments may hold secrets."""
    if isinstance(command, ProgramCommand):
        return command.program
    first = re.match(r"[\w./+-]+(?=\s|$)", _raw(command).lstrip())
    return first[0].rpartition("/")[2] if first else "sh"


def _environment(given: Mapping[str, Any] | None) -> dict[str, str]:
    return {
        key: str(value.unmask() if hasattr(value, "unmask") else value)
        for key, value in (given or {}).items()
    }
