"""This machine as pyinfra's connector: every command ends, and what it prints is kept.

pyinfra's own connector has no bound in time, loses what a command prints in another encoding than UTF-8, and waits for as long as a
daemon that a command left behind holds its output (each seen in pyinfra 3.10.0). Plain commands that
are understood are done in the process (`native`).
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

from pyinfra_solo.executor.shell import CUT, TimedOutError, run_script
from pyinfra_solo.native import UNKNOWN, commands
from pyinfra_solo.native.files import forget_names
from pyinfra_solo.native.pending_files import PendingFiles
from pyinfra_solo.native.registry import answer_to
from pyinfra_solo.operations.script import ProgramCommand

NAME = "@local"
_ELSEWHERE = ("_sudo", "_su_user", "_doas", "_dzdo", "_use_sudo_login", "_use_su_login", "_preserve_sudo_env")


class LocalConnector(BaseConnector):
    """Runs commands here. `seconds` bounds each command that sets no `_timeout` of its own."""

    handles_execution = True

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        self.puts = PendingFiles()
        self.seconds = 600.0
        self.native = True
        """False: every fact and every command takes the ordinary road, as with any other host."""
        self.asking = False
        """A fact is asked by a shell: of half an output it would make a wrong value."""
        self.begins: Callable[[], None] = lambda: None
        """Told that a child is about to be run."""
        self.waited: Callable[[str, float], None] = lambda _what, _seconds: None
        """Told what a child was run for, and for how many seconds."""

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[Any, Any], list[str]]]:  # noqa: ARG004
        yield NAME, {}, [NAME]

    def answer(self, fact: type, args: Sequence[Any], asked: Mapping[str, Any]) -> Any:
        """The fact's value, or UNKNOWN: see `native`."""
        self.puts.appear()
        if args and not asked and fact.__module__ == "pyinfra.facts.files":
            asked, args = {"path": args[0]}, args[1:]
        if not self.native or args or self.state.print_fact_input or not (answer := answer_to(fact)):
            return UNKNOWN
        arguments = self.host.current_op_global_arguments
        if arguments is None:  # outside of an operation it hangs on deploys, data and config
            arguments, _ = pop_global_arguments(self.state, self.host, dict(asked))
        if not usual(arguments) or any(key.startswith("_") for key in asked):
            return UNKNOWN
        return answer(**asked)

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """A command that takes too long has failed, and how it ended is its last line of output: of a
        TimeoutError pyinfra tells only `_timeout`, which is None for our own limit (3.10.0)."""
        if print_input:
            self._show(f">>> {command}")
        if self.native and usual(arguments) and commands.done(_raw(command), self.puts):
            return True, CommandOutput([])
        self.begins()
        self.puts.on_disk()
        began = time.monotonic()
        try:
            well, output = self._run(command, arguments)
        finally:
            self.waited(program(command), time.monotonic() - began)
            forget_names()
        if print_output:
            for line in output:
                self._show(line.line)
        return well, output

    def _show(self, line: str) -> None:
        """Under pyinfra's own command, when it is asked to."""
        import click

        click.echo(f"{self.host.print_prefix}{line}", err=True)

    def _run(self, command: StringCommand, arguments: dict[str, Any]) -> tuple[bool, CommandOutput]:
        seconds = arguments.pop("_timeout", None) or self.seconds
        stdin = arguments.pop("_stdin", None)
        well = arguments.pop("_success_exit_codes", None) or [0]
        arguments.pop("_get_pty", None)
        environment, folder, shell = None, None, "/bin/sh"
        if any(arguments.get(key) for key in _ELSEWHERE):
            script = make_unix_command_for_host(self.state, self.host, command, **arguments).get_raw_value()
        else:
            script = _raw(command)
            environment, folder = _environment(arguments.get("_env")), arguments.get("_chdir")
            shell = arguments.get("_shell_executable") or shell
        try:
            code, output = run_script(
                script, shell=shell, seconds=seconds, stdin=stdin, environment=environment, folder=folder
            )
        except TimedOutError as ended:
            return False, ended.output
        if self.asking and CUT in output.stderr_lines:
            return False, output
        return code in well, output

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,  # noqa: ARG002
        print_output: bool = False,  # noqa: ARG002
        print_input: bool = False,  # noqa: ARG002
        **arguments: Any,
    ) -> bool:
        """By rename (see `native.put`)."""
        with get_file_io(filename_or_io) as opened:
            data = opened.read()
        data = data.encode() if isinstance(data, str) else data
        if any(arguments.get(key) for key in _ELSEWHERE):
            return self._put_as_another(data, remote_filename, arguments)
        self.puts.put(remote_filename, data)
        return True

    def _put_as_another(self, data: bytes, target: str, arguments: Mapping[str, Any]) -> bool:
        """Through a pipe: what is put may be a secret, and nobody else may read it on the way."""
        command = StringCommand("umask 077; cat >", QuoteString(target))
        well, output = self.run_shell_command(command, **{**arguments, "_stdin": data})
        if not well:
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
        self.puts.appear()
        with get_file_io(filename_or_io, "wb") as opened:
            opened.write(Path(remote_filename).read_bytes())
        return True


def usual(arguments: Mapping[str, Any]) -> bool:
    """Whether a command is to be run as this process is: the same user, folder and environment, by the
    usual shell, nothing read, success being 0."""
    return (
        not any(map(arguments.get, _UNUSUAL))
        and arguments.get("_shell_executable") in _SHELLS
        and arguments.get("_success_exit_codes") in _SUCCESS
    )


_UNUSUAL = (*_ELSEWHERE, "_env", "_chdir", "_stdin")
_SHELLS = (None, "sh", "/bin/sh")
_SUCCESS = (None, [0])


def _raw(command: StringCommand | str) -> str:
    """A fact's command may be a plain string."""
    return command if isinstance(command, str) else command.get_raw_value()


def program(command: StringCommand | str) -> str:
    """Name the program alone, one of ours (`operations.script`) by its own name: arguments may hold secrets."""
    if isinstance(command, ProgramCommand):
        return command.program
    bits = list(command.bits) if isinstance(command, StringCommand) else []
    if "-c" in bits[1:-2]:
        shell, _, text, name = bits[(at := bits.index("-c")) - 1 : at + 3]
        if shell == "sh" and isinstance(text, QuoteString) and re.fullmatch("[a-z]+", str(name)):
            return f"sh {name}"
    first = re.match(r"[\w./+-]+(?=\s|$)", _raw(command).lstrip())
    return first[0].rpartition("/")[2] if first else "sh"


def _environment(given: Mapping[str, Any] | None) -> dict[str, str]:
    return {
        key: str(value.unmask() if hasattr(value, "unmask") else value)
        for key, value in (given or {}).items()
    }
