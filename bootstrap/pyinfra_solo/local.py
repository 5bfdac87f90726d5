"""This machine as pyinfra's one host: an inventory, a host and a connector of our own.

Through pyinfra's API, never `pyinfra_cli`, which patches the process. pyinfra's own connector has no
bound in time, loses what a command prints in another encoding than UTF-8, and waits for as long as a
daemon that a command left behind holds its output (each seen in pyinfra 3.10.0).
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pyinfra.api import Config, Host, Inventory, State
from pyinfra.api.command import StringCommand
from pyinfra.api.util import get_file_io
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import CommandOutput, OutputLine, make_unix_command_for_host

from pyinfra_solo import processes

NAME = "@local"
_MOST_OUTPUT = 8 * 1024 * 1024
_ELSEWHERE = ("_sudo", "_su_user", "_doas", "_dzdo", "_use_sudo_login", "_use_su_login", "_preserve_sudo_env")


class ThisMachine(BaseConnector):
    """Runs commands here. `seconds` bounds each command that sets no `_timeout` of its own."""

    handles_execution = True
    seconds: float = 600.0

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[Any, Any], list[str]]]:  # noqa: ARG004
        yield NAME, {}, [NAME]

    def run_shell_command(
        self,
        command: StringCommand,
        print_output: bool = False,  # noqa: ARG002 - pyinfra's signature
        print_input: bool = False,  # noqa: ARG002
        **arguments: Any,
    ) -> tuple[bool, CommandOutput]:
        """A command that takes too long has failed, and how it ended is its last line of output: of a
        TimeoutError pyinfra tells only `_timeout`, which is None for our own limit (3.10.0)."""
        arguments.pop("_get_pty", None)
        seconds = arguments.pop("_timeout", None) or self.seconds
        stdin = arguments.pop("_stdin", None)
        well = arguments.pop("_success_exit_codes", None) or [0]
        environment, folder, shell = None, None, "/bin/sh"
        if any(arguments.get(key) for key in _ELSEWHERE):
            script = make_unix_command_for_host(self.state, self.host, command, **arguments).get_raw_value()
        else:
            script = StringCommand(command).get_raw_value()
            environment, folder = _environment(arguments.get("_env")), arguments.get("_chdir")
            shell = arguments.get("_shell_executable") or shell
        try:
            code, output = run_script(
                script, shell=shell, seconds=seconds, stdin=stdin, environment=environment, folder=folder
            )
        except EndedError as ended:
            return False, ended.output
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
        """By rename, and synced: a power cut leaves the old file or the new one. The old one's mode
        and owner stay; a new one is 0600 until the operation's own chmod, as with pyinfra's."""
        with get_file_io(filename_or_io) as opened:
            data = opened.read()
        data = data.encode() if isinstance(data, str) else data
        if any(arguments.get(key) for key in _ELSEWHERE):
            return self._put_as_another(data, remote_filename, arguments)
        _replace(Path(os.path.realpath(remote_filename)), data)
        return True

    def _put_as_another(self, data: bytes, target: str, arguments: Mapping[str, Any]) -> bool:
        with tempfile.NamedTemporaryFile() as beside:
            beside.write(data)
            beside.flush()
            Path(beside.name).chmod(0o644)
            well, output = self.run_shell_command(StringCommand("cp", beside.name, target), **arguments)
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
        with get_file_io(filename_or_io, "wb") as opened:
            opened.write(Path(remote_filename).read_bytes())
        return True


class OneHost(Inventory):
    """An inventory of this machine alone. pyinfra's own loads every connector twice, ssh's among
    them, which is most of its start-up time."""

    def __init__(self, data: Mapping[str, Any], host: type[Host] = Host) -> None:
        self._host_class = host
        super().__init__(([NAME], {}), override_data=dict(data))  # type: ignore[no-untyped-call]

    def make_hosts_and_groups(self, names: Any, groups: Any) -> None:  # noqa: ARG002
        host = self._host_class(NAME, inventory=self, groups=[NAME], connector_cls=ThisMachine)
        self.host_data[NAME] = {}
        self.hosts = {NAME: host}
        self.groups[NAME].append(host)


def state_here(root: Path, data: Mapping[str, Any], host: type[Host] = Host) -> State:
    """A pyinfra State of this machine, nothing evaluated twice (`check_for_changes=False` is what
    `pyinfra -y` does); file names are relative to `root`."""
    state = State(OneHost(data, host), Config(), check_for_changes=False)
    state.cwd = str(root)
    for one in state.inventory:
        one.connected = True
        state.activate_host(one)
    return state


class EndedError(TimeoutError):
    """A script took too long and was ended. output: what it had said by then, and this."""

    def __init__(self, seconds: float, output: CommandOutput) -> None:
        super().__init__(f"took longer than {seconds:g} s and was ended")
        self.output = CommandOutput([*output.combined_lines, OutputLine("stderr", str(self))])


def run_script(
    script: str,
    *,
    shell: str = "/bin/sh",
    seconds: float,
    stdin: Any = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> tuple[int, CommandOutput]:
    """Exit status and output. Raises EndedError when it takes longer than `seconds`; then nothing of
    its process group is left.

    The script is read from a file that has no name, so it is in no argv; output goes to files, so a
    daemon left behind holds up nobody.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        source = os.memfd_create("script", 0)
        try:
            os.write(source, script.encode(errors="surrogateescape"))
            os.set_inheritable(source, True)
            given.write(_stdin(stdin))
            given.seek(0)
            process = subprocess.Popen(
                [shell, f"/dev/fd/{source}"],
                stdin=given, stdout=out, stderr=err, pass_fds=(source,), process_group=0,
                env={**os.environ, **(environment or {})}, cwd=folder,
            )  # fmt: skip
        finally:
            os.close(source)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            processes.end_group(process.pid)
            process.wait()
            raise EndedError(seconds, _said(out, err)) from None
        return code, _said(out, err)


def _said(out: Any, err: Any) -> CommandOutput:
    return CommandOutput([*_lines("stdout", out), *_lines("stderr", err)])


def _lines(name: str, file: Any) -> list[OutputLine]:
    file.seek(0)
    text = file.read(_MOST_OUTPUT).decode(errors="replace")
    return [OutputLine(name, line) for line in text.splitlines()]


def _stdin(given: Any) -> bytes:
    if given is None:
        return b""
    if isinstance(given, bytes):
        return given
    if isinstance(given, str):
        return given.encode()
    if hasattr(given, "read"):
        return _stdin(given.read())
    return b"".join(_stdin(line).rstrip(b"\n") + b"\n" for line in given)


def _environment(given: Mapping[str, Any] | None) -> dict[str, str]:
    return {
        key: str(value.unmask() if hasattr(value, "unmask") else value)
        for key, value in (given or {}).items()
    }


def _replace(target: Path, data: bytes) -> None:
    """One run at a time writes here, so the name beside is always the same: what a power cut leaves of it
    is taken away by the next run, and does not stay for ever."""
    beside = target.with_name(f".{target.name}.pyinfra-solo-new")
    try:
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            if target.exists():
                old = target.stat()
                os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, old.st_mode & 0o7777)
            opened.flush()
            os.fsync(descriptor)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
