"""The connector of this machine: every command ends, and its output is kept."""

import os
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import HiddenValue, Host, MaskString, StringCommand
from pyinfra.api.exceptions import FactError
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_host, ctx_state
from pyinfra.facts.server import Command
from pyinfra.operations import files

from pyinfra_solo.executor import shell
from pyinfra_solo.executor.connector import LocalConnector
from pyinfra_solo.executor.host import LocalHost, local_state
from pyinfra_solo.executor.solo_connector import take_over
from tests.support.apart import mount_over, run_apart
from tests.support.both_ways import WAYS
from tests.support.machine import REPOSITORY
from tests.support.programs import is_alive, wait_for
from tests.support.pyinfra_api import play_in, pyinfra_state


@pytest.fixture
def machine(tmp_path: Path) -> LocalConnector:
    state = local_state(tmp_path, {})
    connector = next(iter(state.inventory)).connector
    assert isinstance(connector, LocalConnector)
    return connector


@pytest.fixture
def pid_of(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """The pid that a script wrote into the file `pid`; it is ended after the test."""
    file = tmp_path / "pid"

    def pid() -> int:
        return int(file.read_text())

    yield pid
    if file.exists() and is_alive(pid()):
        os.kill(pid(), signal.SIGKILL)


def run_script(script: str, name: str = "sh", **options: Any) -> tuple[int | None, CommandOutput]:
    with shell.by_reference(script, name) as words:
        return shell.run([name, *words], **{"timeout": 20, **options})


def out(script: str, **options: Any) -> list[str]:
    code, output = run_script(script, **options)
    assert code == 0
    return output.stdout_lines


def test_output_that_is_not_utf_8_is_kept() -> None:
    assert out(r"printf 'caf\351 au lait\nand more\n'") == [
        "caf\N{REPLACEMENT CHARACTER} au lait",
        "and more",
    ]


def test_lines_end_at_newlines_and_nowhere_else() -> None:
    """files.line asks for what grep(1) prints, of files with any line ends."""
    assert out(r"printf 'a\r\nb\fc\r\n\n'") == ["a\r", "b\fc\r", ""]


def test_a_script_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        run_script("echo a\0b", timeout=20)


def test_stdout_and_stderr_are_separate() -> None:
    code, output = run_script("echo well; echo ill >&2; exit 3", timeout=20)
    assert (code, output.stdout_lines, output.stderr_lines) == (3, ["well"], ["ill"])


def test_more_output_than_a_pipe_holds_blocks_nobody() -> None:
    assert len(out("seq 100000; seq 100000 >&2")) == 100000


def test_output_without_end_is_cut_and_the_command_still_ends() -> None:
    code, output = run_script("head -c 20000000 /dev/zero | tr '\\0' x", timeout=20)
    assert code == 0
    assert [len(line) for line in output.stdout_lines] == [shell.MAX_OUTPUT]
    assert output.stderr_lines == ["(more than 8 MiB of output were cut)"]


@pytest.fixture(params=[LocalHost, Host], ids=["our host", "pyinfra's host"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A host with our connector: of a converge, and of pyinfra's own command."""
    state = local_state(tmp_path, {}, request.param)
    one = next(iter(state.inventory))
    if request.param is Host:
        take_over(one, native=True, timeout=60)
    with ctx_state.use(state), ctx_host.use(one):
        yield one


def test_a_fact_may_print_more_than_a_command(host: Host) -> None:
    lines = host.get_fact(Command, command="seq -f %0100.0f 100000").splitlines()
    assert [int(line) for line in lines] == list(range(1, 100001))


def test_a_fact_that_prints_too_much_is_an_error(host: Host) -> None:
    """Cut, its value would be wrong."""
    with pytest.raises(FactError, match="fact Command printed more than 64 MiB"):
        host.get_fact(Command, command="head -c 67108865 /dev/zero", _ignore_errors=True)


def test_a_daemon_that_keeps_stdout_open_holds_up_nobody(pid_of: Callable[[], int], tmp_path: Path) -> None:
    """pyinfra's own connector waits for the daemon's end."""
    assert out(f"setsid sleep 60 & echo $! > {tmp_path}/pid; echo started") == ["started"]
    assert is_alive(pid_of())


def test_a_time_out_ends_the_whole_process_group(pid_of: Callable[[], int], tmp_path: Path) -> None:
    script = f"sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60'; true"
    code, output = run_script(script, timeout=0.5)
    assert (code, output.stderr_lines) == (None, ["took longer than 0.5 s and was ended"])
    assert not is_alive(pid_of())


def test_a_time_out_ends_what_ignores_the_polite_signal(pid_of: Callable[[], int], tmp_path: Path) -> None:
    """A child that ignores SIGTERM outlives its parent, which does not."""
    script = f"(trap '' TERM; echo $(exec sh -c 'echo $PPID') > {tmp_path}/pid; while :; do sleep 0.1; done) & wait"
    assert run_script(script, timeout=1)[0] is None
    # Its SIGKILL is sent by then; the kernel may take a moment.
    wait_for("its end", lambda: not is_alive(pid_of()), timeout=10)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"_env": {"SECRET": HiddenValue("hunter2")}, "_chdir": "/"}, {"_shell_executable": "/usr/bin/env bash"},
     {"_shell_executable": None}, {"_su_user": "root"}, {"_su_user": "root", "_shell_executable": "bash"},
     {"_su_user": "nobody", "_su_shell": "/bin/sh", "_env": {"SECRET": "hunter2"}}],
    ids=["plain", "env", "bash", "no shell", "root", "root's bash", "another account"],
)  # fmt: skip
def test_a_script_is_in_no_argv(arguments: dict[str, Any], machine: LocalConnector) -> None:
    """Any user may read /proc/*/cmdline."""
    script = """
        : hunter2-in-a-script
        for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' 2>/dev/null < $file; echo; done
        echo end
    """
    done, output = machine.run_shell_command(StringCommand(script), **arguments)
    assert (done, output.stdout_lines[-1]) == (True, "end")
    assert f"/proc/{os.getpid()}/fd/" in output.stdout
    assert "hunter2" not in output.stdout


def test_a_script_of_another_account_is_in_a_file_that_it_can_only_read(machine: LocalConnector) -> None:
    """Nobody else can read it, the account cannot replace or fill it, and it is gone afterwards."""
    pattern = f"/run/pyinfra-solo-{os.getpid()}-*"
    who: dict[str, Any] = {"_su_user": "nobody", "_su_shell": "/bin/sh"}
    script = StringCommand(
        f"rm -f {pattern} 2>/dev/null; chmod 600 {pattern} 2>/dev/null && echo changed; "
        f"(: >>$(echo {pattern})) 2>/dev/null && echo opened; stat -c '%U %a' {pattern}"
    )
    done, output = machine.run_shell_command(script, **who)
    assert (done, output.stdout_lines) == (True, ["root 640"])
    assert list(shell._MEMORY.glob(f"pyinfra-solo-{os.getpid()}-*")) == []


def test_no_third_account_can_read_a_script() -> None:
    """Not by its group either."""
    attempts = []
    with shell.by_reference("hunter2", uid=65534) as words:
        path = words[1].partition(" ")[2].partition(";")[0]
        for uid, gid in ((65534, 65534), (1, 65534), (1, 1)):
            attempts.append(
                subprocess.run(
                    ["cat", path], user=uid, group=gid, extra_groups=[], capture_output=True, check=False
                )
            )
    assert [b"hunter2" in one.stdout for one in attempts] == [True, False, False]


def scripts_without_lists(folder: str) -> list[list[Any]]:
    """Make scripts on a file system without access control lists, for accounts with and without an own group."""
    subprocess.run(["mount", "-t", "ramfs", "none", folder], check=True)
    shell._MEMORY = Path(folder)
    passwd, found = Path(folder, "passwd"), []
    passwd.write_text(f"{Path('/etc/passwd').read_text().rstrip()}\nalone:x:7777:7777::/:/bin/sh\n")
    group = Path(folder, "group")
    group.write_text(f"{Path('/etc/group').read_text().rstrip()}\nalone:x:7777:\n")
    mount_over("/etc/passwd", passwd)
    mount_over("/etc/group", group)
    for uid in (7777, 65534):
        try:
            with shell.by_reference("hunter2", uid=uid) as words:
                about = Path(words[1].partition(" ")[2].partition(";")[0]).stat()
                found.append([oct(about.st_mode), about.st_uid, about.st_gid])
        except OSError as error:
            found.append([str(error)])
    return found


def test_without_access_lists_a_script_is_readable_by_a_group_of_one(tmp_path: Path) -> None:
    """The group of `nobody` has other members."""
    alone, nobody = run_apart(scripts_without_lists, tmp_path, own_mounts=True)
    assert alone == ["0o100440", 0, 7777]
    assert "the group of nobody has other members" in nobody[0]


def test_a_killed_runs_script_of_another_account_is_removed(machine: LocalConnector) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, others = (shell._MEMORY / f"pyinfra-solo-{pid}-left" for pid in (ended.pid, 1))
    shell._sweep.cache_clear()
    try:
        for path in (left, others):
            path.write_text("hunter2")
        machine.run_shell_command(StringCommand("true"), _su_user="nobody", _su_shell="/bin/sh")
        assert (left.exists(), others.exists()) == (False, True)
    finally:
        left.unlink(missing_ok=True)
        others.unlink(missing_ok=True)


@pytest.mark.parametrize("account", ["no-such-account", "#x"])
def test_an_account_that_does_not_exist_is_named_by_its_tool(account: str, machine: LocalConnector) -> None:
    """pyinfra's facts go by that message."""
    done, output = machine.run_shell_command(StringCommand("true"), _su_user=account)
    assert not done
    assert (
        output.stderr
        == f"su: user {account} does not exist or the user entry does not contain all the required fields"
    )


@pytest.mark.parametrize("name", ["sh -a", "bash -a"])
def test_a_script_is_in_no_childs_environment(name: str, machine: LocalConnector) -> None:
    """Not even of a shell that exports each variable."""
    script = "env; echo ${pyinfra_solo_script-unset}; : hunter2"
    _, output = machine.run_shell_command(StringCommand(script), _shell_executable=name)
    assert output.stdout_lines[-1] == "unset"
    assert "hunter2" not in output.stdout


@pytest.mark.parametrize("name", ["/bin/dash", "/bin/bash"])
def test_a_child_of_another_account_can_change_nothing(name: str) -> None:
    """Neither the script that root's shell still reads, nor output that is written already.

    The script is longer than a shell reads at once.
    """
    intruder = (REPOSITORY / "tests/support/scripts/intruder.py").read_text()
    script = f"""echo before; echo before >&2
setpriv --reuid 65534 --regid 65534 --clear-groups /usr/bin/python3 -c {shlex.quote(intruder)} $$ $PPID
PADDING
echo after $(id -u)""".replace("PADDING", ": padding\n" * 20_000)
    code, output = run_script(script, name, stdin=b"one\ntwo\n")
    assert (code, output.stderr_lines) == (0, ["before"])
    assert output.stdout_lines == ["before", "done: []", "after 0"]


def test_stdin_of_another_account_can_be_read() -> None:
    """Though it was written by root."""
    assert out("setpriv --reuid 65534 cat /dev/stdin", stdin="one\n") == ["one"]


def test_a_script_longer_than_an_argument_may_be_is_run() -> None:
    """One argument holds 128 KiB at most (execve(2), MAX_ARG_STRLEN)."""
    assert out(": " + "x" * 200_000 + "\necho done") == ["done"]


def test_a_script_may_hold_bytes_that_are_no_text() -> None:
    assert out("printf '\udce9' | od -An -tx1") == [" e9"]


@pytest.mark.parametrize(
    "given", ["one\ntwo\n", b"one\ntwo\n", StringIO("one\ntwo\n"), ["one", "two"], ("one\n", "two\n")]
)
def test_stdin_is_what_pyinfra_takes(given: Any) -> None:
    assert out("cat", stdin=given) == ["one", "two"]


def test_without_stdin_a_command_that_asks_reads_its_end() -> None:
    """Nobody is there to answer."""
    assert out("read line || echo nobody") == ["nobody"]


def test_env_chdir_and_shell_are_honoured(machine: LocalConnector, tmp_path: Path) -> None:
    done, output = machine.run_shell_command(
        StringCommand('echo "$WHO $(pwd) $BASH_VERSION"'),
        _env={"WHO": "me"}, _chdir=str(tmp_path), _shell_executable="/bin/bash",
    )  # fmt: skip
    assert done
    assert output.stdout.startswith(f"me {tmp_path} 5")


def test_a_hidden_value_reaches_the_command(machine: LocalConnector) -> None:
    _, output = machine.run_shell_command(
        StringCommand('echo "$A $B"'), _env={"A": HiddenValue("one"), "B": 2}
    )
    assert output.stdout == "one 2"
    _, output = machine.run_shell_command(StringCommand("echo", MaskString("three")))
    assert output.stdout == "three"


def test_other_exit_codes_can_be_well(machine: LocalConnector) -> None:
    assert machine.run_shell_command(StringCommand("exit 3"), _success_exit_codes=[0, 3])[0]
    assert not machine.run_shell_command(StringCommand("exit 4"), _success_exit_codes=[0, 3])[0]


@pytest.mark.parametrize(("codes", "well"), [([-9], True), ([137], True), ([0, 9], False), (None, False)])
def test_an_exit_code_may_name_a_signal(codes: list[int] | None, well: bool, machine: LocalConnector) -> None:
    """As -9 or as 137: which of them pyinfra gets depends on the shell that is /bin/sh."""
    for script in ("kill -9 $$", "sh -c 'kill -9 $$'; exit $?"):
        done, output = machine.run_shell_command(StringCommand(script), _success_exit_codes=codes)
        assert (done, output.stderr_lines) == (well, ["Killed"])


def test_any_interpreter_can_be_the_shell(machine: LocalConnector) -> None:
    """Even one that knows neither `.` nor eval."""
    done, output = machine.run_shell_command(StringCommand("print(6 * 7)"), _shell_executable="python3 -S")
    assert (done, output.stdout_lines) == (True, ["42"])


def test_another_user_runs_it_when_asked(machine: LocalConnector) -> None:
    """root needs neither sudo nor a password for su(1)."""
    done, output = machine.run_shell_command(
        StringCommand("echo $(id -un) $WHO"), _su_user="nobody", _su_shell="/bin/sh", _env={"WHO": "me"}
    )
    assert (done, output.stdout) == (True, "nobody me")


def test_a_file_is_put_as_another_user_when_asked(machine: LocalConnector) -> None:
    target = Path("/tmp") / f"put as another {os.getpid()}"  # noqa: S108 - nobody may write nowhere else
    try:
        machine.put_file(StringIO("mine\n\nand 'more'"), str(target), _su_user="nobody", _su_shell="/bin/sh")
        assert target.read_text() == "mine\n\nand 'more'"
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert target.owner() == "nobody"
        with pytest.raises(OSError, match="denied"):
            machine.put_file(StringIO("mine"), "/root/mine", _su_user="nobody", _su_shell="/bin/sh")
    finally:
        target.unlink(missing_ok=True)


def test_its_own_timeout_beats_the_general_one(machine: LocalConnector) -> None:
    done, output = machine.run_shell_command(StringCommand("echo so far; sleep 60"), _timeout=0.2)
    assert (done, output.stdout, output.stderr) == (False, "so far", "took longer than 0.2 s and was ended")


def test_a_file_that_is_put_keeps_its_mode_and_owner(machine: LocalConnector, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    os.chown(target, 65534, 12)
    target.chmod(0o4750)
    machine.put_file(StringIO("new"), str(target))
    about = target.stat()
    assert target.read_text() == "new"
    assert (stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid) == (0o4750, 65534, 12)


def test_a_new_file_is_for_its_owner_alone(machine: LocalConnector, tmp_path: Path) -> None:
    machine.put_file(StringIO("new"), str(tmp_path / "file"))
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_reader_of_a_file_that_is_put_sees_the_old_or_the_new(
    machine: LocalConnector, tmp_path: Path
) -> None:
    """It comes by rename: who has the old one open keeps reading the old one."""
    target = tmp_path / "file"
    target.write_text("old")
    with target.open() as before:
        machine.put_file(StringIO("new"), str(target))
        assert before.read() == "old"
    assert sorted(tmp_path.iterdir()) == [target]


def test_a_link_that_is_put_to_stays_a_link(machine: LocalConnector, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    machine.put_file(StringIO("new"), str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize(
    ("folder", "dest", "expected"),
    [("{}/d", "f", "d/f"), ("{}/to-e", "../f", "d/f"), ("{}/to-e/..", "f", "f"), ("d", "f", "d/f"), ("{}/d", "{}/f", "f"), ("", "f", "f")],
)  # fmt: skip
def test_a_relative_path_that_is_put_is_below_its_folder(
    folder: str, dest: str, expected: str, machine: LocalConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """As after `cd`, by pyinfra's own connector too."""
    for connector in (machine, next(iter(pyinfra_state().inventory)).connector):
        root = tmp_path / type(connector).__module__
        (root / "d/e").mkdir(parents=True)
        (root / "to-e").symlink_to("d/e")
        monkeypatch.chdir(root)
        connector.put_file(StringIO("text"), dest.format(root), _chdir=folder.format(root))
        assert [path for path in root.rglob("*") if path.is_file()] == [root / expected]


@pytest.mark.parametrize("folder", ["/no/such", "/etc/passwd"])
def test_an_upload_below_no_folder_fails(folder: str, machine: LocalConnector, tmp_path: Path) -> None:
    for connector in (machine, next(iter(pyinfra_state().inventory)).connector):
        with pytest.raises(OSError, match=folder):
            connector.put_file(StringIO("text"), str(tmp_path / "f"), _chdir=folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dest", "codes", "well"),
    [("f", [0], True), ("f", [3], False), ("f", [3, 0], True), ("no/f", [1], True), ("no/f", [0], False)],
)
def test_exit_codes_hold_for_an_upload(
    dest: str, codes: list[int], well: bool, machine: LocalConnector, tmp_path: Path
) -> None:
    """pyinfra's is a cp(1)."""
    for connector in (machine, next(iter(pyinfra_state().inventory)).connector):
        with nullcontext() if well else pytest.raises(OSError):  # noqa: PT011
            assert connector.put_file(StringIO("x"), str(tmp_path / dest), _success_exit_codes=codes)
        assert (tmp_path / "f").exists() is (dest == "f")
        (tmp_path / "f").unlink(missing_ok=True)


def test_a_failed_upload_leaves_no_temporary_file(machine: LocalConnector, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        machine.put_file(StringIO("new"), str(tmp_path / "absent" / "file"))
    assert list(tmp_path.iterdir()) == []


def test_rsync_gets_pyinfras_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name notes them: not every machine has rsync(1)."""
    program = tmp_path / "bin/rsync"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$PWD" "$@" >> {tmp_path}/words; [ "$2" != -n ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    def declare() -> None:
        files.rsync(name="by default", src="roles/", dest=f"{tmp_path}/a b")
        files.rsync(name="it fails", src="x", dest="y", flags=["-a", "-n"], _chdir="/", _ignore_errors=True)
        files.rsync(name="it ends the run", src="x", dest="y", flags=["-a", "-n"])

    found = {}
    for way, state in WAYS.items():
        played = play_in(state(), declare)
        found[way] = played.made, played.failed, (tmp_path / "words").read_text()
        (tmp_path / "words").unlink()
    assert found["native"] == found["native-off"] == found["pyinfra"]
    assert found["pyinfra"][:2] == (("by default",), "it ends the run")
    assert len(found["pyinfra"][2].splitlines()) == 6 + 5 + 5


def test_rsync_that_is_not_installed_is_named(
    machine: LocalConnector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    machine.check_can_rsync()
    with pytest.raises(FileNotFoundError, match="rsync is not installed"):
        machine.rsync("a", "b", ["-a"])


def test_a_file_is_fetched(machine: LocalConnector, tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"\0\xff")
    machine.get_file(str(tmp_path / "from"), str(tmp_path / "to"))
    assert (tmp_path / "to").read_bytes() == b"\0\xff"


@pytest.mark.parametrize("native", [True, False])
def test_a_failing_fetch_leaves_the_local_file(native: bool, machine: LocalConnector, tmp_path: Path) -> None:
    machine.native = native
    (tmp_path / "to").write_text("old")
    with pytest.raises(OSError, match="No such file"):
        machine.get_file(str(tmp_path / "absent"), str(tmp_path / "to"))
    assert (tmp_path / "to").read_text() == "old"


def test_a_pipe_or_device_is_not_fetched(machine: LocalConnector, tmp_path: Path) -> None:
    """Neither has an end that is sure to come."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/urandom", tmp_path):
        with pytest.raises(OSError, match="is not a regular file"):
            machine.get_file(str(path), str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_a_file_of_the_kernel_is_fetched(machine: LocalConnector, tmp_path: Path) -> None:
    """Its length is 0 (proc(5))."""
    machine.get_file("/proc/self/status", str(tmp_path / "to"))
    assert "Umask:" in (tmp_path / "to").read_text()


def test_a_file_is_fetched_as_another_user_when_asked(machine: LocalConnector, open_folder: Path) -> None:
    as_nobody: dict[str, Any] = {"_su_user": "nobody", "_su_shell": "/bin/sh"}
    (open_folder / "secret").write_text("root's")
    (open_folder / "secret").chmod(0o600)
    (open_folder / "it's open").write_bytes(bytes(range(256)) * 9)
    machine.get_file(f"{open_folder}/it's open", f"{open_folder}/to", **as_nobody)
    assert (open_folder / "to").read_bytes() == bytes(range(256)) * 9
    with pytest.raises(OSError, match="denied"):
        machine.get_file(f"{open_folder}/secret", f"{open_folder}/to", **as_nobody)
    assert (open_folder / "to").read_bytes() == bytes(range(256)) * 9


def test_a_long_file_is_not_fetched_in_part(machine: LocalConnector, open_folder: Path) -> None:
    """Output of a command is kept up to a limit."""
    (open_folder / "long").write_bytes(bytes(8 * 1024**2))
    with pytest.raises(OSError, match="too long to be read as another account"):
        machine.get_file(f"{open_folder}/long", f"{open_folder}/to", _su_user="nobody", _su_shell="/bin/sh")
    machine.get_file(f"{open_folder}/long", f"{open_folder}/to")
    assert (open_folder / "to").stat().st_size == 8 * 1024**2


@pytest.mark.parametrize(
    "account", [{}, {"_sudo": True}, {"_su_user": "root"}, {"_su_user": "nobody", "_su_shell": "/bin/sh"}]
)
def test_a_link_to_nothing_is_not_written_through(
    account: dict[str, Any], machine: LocalConnector, open_folder: Path
) -> None:
    """As cp(1), which is pyinfra's own way."""
    open_folder.chmod(0o1777)
    (open_folder / "link").symlink_to("absent")
    with pytest.raises(OSError, match="not written through a link to nothing"):
        machine.put_file(StringIO("new"), f"{open_folder}/link", **account)
    assert [path.name for path in open_folder.iterdir()] == ["link"]


def test_a_put_onto_a_pipe_ends_in_time(machine: LocalConnector, tmp_path: Path) -> None:
    """Though its reader does not read."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(TimeoutError, match="its reader took longer than 1 s"):
            machine.put_file(StringIO("x" * 1_000_000), str(tmp_path / "pipe"), _timeout=1)
    finally:
        os.close(reader)


@pytest.mark.parametrize("account", [{}, {"_su_user": "nobody", "_su_shell": "/bin/sh"}])
def test_relative_paths_are_relative_to_chdir(
    account: dict[str, Any], machine: LocalConnector, open_folder: Path
) -> None:
    (open_folder / "folder").mkdir()
    (open_folder / "folder").chmod(0o777)
    machine.put_file(StringIO("new"), "file", _chdir=f"{open_folder}/folder", **account)
    assert (open_folder / "folder/file").read_text() == "new"
    machine.get_file("file", f"{open_folder}/to", _chdir=f"{open_folder}/folder", **account)
    assert (open_folder / "to").read_text() == "new"


def test_what_a_script_leaves_in_the_background_is_not_waited_for(
    pid_of: Callable[[], int], tmp_path: Path
) -> None:
    """It is in the command's group, and is not ended by the command's own end."""
    out(f"sleep 60 & echo $! > {tmp_path}/pid")
    time.sleep(0.1)
    assert is_alive(pid_of())
