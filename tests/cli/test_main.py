"""The command as a process: exit status, stdout for data, stderr for messages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_records import validated
from tests.support.imds import metadata_service
from tests.support.instance import Instance
from tests.support.loopback import NOWHERE
from tests.support.machine import ENGINE, LocalMachine, use_root
from tests.support.programs import Result
from tests.test_gate import OTHER_BOOT, statement

COMMANDS = [
    "boot", "run", "plan", "status", "report", "gate", "gate status", "gate close", "gate open", "install", "init",
]  # fmt: skip
NOBODY = 65534


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    """Make a machine that is not on EC2, has no remote, and asks no real service."""
    return LocalMachine(tmp_path / "machine", environment={"AWS_EC2_METADATA_SERVICE_ENDPOINT": NOWHERE})


@contextlib.contextmanager
def inside(machine: LocalMachine) -> Iterator[None]:
    """Use the machine's paths in this process."""
    with pytest.MonkeyPatch.context() as patch:
        use_root(machine.root, patch)
        yield


def open_gate_of(machine: LocalMachine, **changes: Any) -> None:
    from pyinfra_solo.gate import open_gate

    with inside(machine):
        open_gate(statement(**changes))


def last_report(machine: LocalMachine) -> dict[str, Any]:
    return validated((machine.state / "last-run.json").read_bytes())


def refused(result: Result, code: int, text: str) -> None:
    """Check that a command has failed with this exit status and text, without traceback and data."""
    result.expect(code)
    assert result.stdout == ""
    assert text in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_help_of_each_command_touches_nothing(machine: LocalMachine, words: str) -> None:
    result = machine.solo(*words.split(), "--help").expect(0)

    assert result.stdout.startswith("Usage: ")
    assert result.stderr == ""
    assert [path.name for path in machine.root.iterdir()] == ["etc"]


def test_help_names_every_command(machine: LocalMachine) -> None:
    result = machine.solo("-h").expect(0)

    assert all(f"\n  {words.split()[0]} " in result.stdout for words in COMMANDS)
    assert result.stdout.count("...") == result.stdout.count("[ARGS]...")


def test_version_is_printed(machine: LocalMachine) -> None:
    from pyinfra_solo import __version__

    assert machine.solo("--version").expect(0).stdout == f"pyinfra-solo, version {__version__}\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "Usage: "),
        (["rnu"], "No such command 'rnu'"),
        (["--confg", "x", "run"], "No such option"),
        (["--config"], "requires an argument"),
        (["boot", "--role", "web"], "No such option"),
        (["run", "--data", "port"], "--data 'port…' is not KEY=VALUE."),
        (["run", "--ref", "--upload-pack=x"], "'--upload-pack=x' is not a branch, a tag or a commit"),
        (["run", "--ref", "a..b"], "'a..b' is not a branch"),
        (["plan", "--blank"], "--blank needs --dir"),
        (["plan", "--dir", "/no/such/folder"], "does not exist"),
        (["status", "web"], "unexpected extra argument"),
        (["gate"], "Usage: "),
        (["gate", "shut"], "No such command 'shut'"),
        (["gate", "close"], "Missing option '--reason'"),
        (["gate", "open"], "Missing option '--reason'"),
        (["install", "--init", "openrc"], "'openrc' is not one of"),
        (["init"], "Missing argument 'DIRECTORY'"),
        (["init", "a", "b"], "unexpected extra argument"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_command_line_is_refused_and_touches_nothing(
    machine: LocalMachine, words: list[str], text: str
) -> None:
    refused(machine.solo(*words), 64, text)

    assert [path.name for path in machine.root.iterdir()] == ["etc"]


def test_wrong_data_flag_does_not_print_its_value(machine: LocalMachine) -> None:
    assert "hunter2" not in machine.solo("run", "--data", "db_password:hunter2").expect(64).stderr


@pytest.mark.parametrize(
    ("words", "settings", "code", "text"),
    [
        (["--config", "/no/such/file", "run"], {}, 13, "There is no settings file /no/such/file."),
        (["--config", "/", "run"], {}, 13, "cannot be read"),
        (["run"], {"opps": ""}, 13, "unknown field `opps`"),
        (["run"], {"machine": 'ec2 = "no"'}, 12, "Set a tag Stage, set machine.stage in the settings, or use --stage"),
        (["run", "--stage", "../../etc"], {}, 12, "The stage '../../etc' from the flag --stage is not a name"),
        (["run", "--stage", ""], {}, 12, "The stage '' from the flag --stage is not a name"),
        (["run"], {}, 10, "No remote is set"),
        (["boot"], {}, 10, "No remote is set"),
        (["plan"], {}, 10, "No remote is set"),
        (["run"], {"limits": "deadline = 0"}, 22, "Out of time while coming to close gate"),
        (["run"], {"machine": 'ec2 = "yes"', "limits": "metadata = 0.1"}, 10, "set machine.ec2 = 'no'"),
        (["gate", "open", "--reason", "x"], {}, 30, "Not reopened: no successful run since this boot"),
    ],
)  # fmt: skip
def test_failure_has_an_exit_status_one_line_and_a_report(
    machine: LocalMachine, words: list[str], settings: dict[str, str], code: int, text: str
) -> None:
    machine.configure(**settings)
    refused(machine.solo(*words), code, text)

    if "plan" not in words:
        report = last_report(machine)
        assert (report["exit_code"], report["outcome"], report["gate"]) == (code, "failed", "closed")
        assert text in report["error"]


@pytest.mark.parametrize(
    "settings", [{}, {"opps": ""}, {"limits": "deadline = 0"}, {"machine": 'ec2 = "no"'}]
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_json_of_a_failure_is_a_whole_report(
    machine: LocalMachine, command: str, settings: dict[str, str]
) -> None:
    machine.configure(**settings)
    result = machine.solo(command, "--json")
    report = validated(result.stdout)

    assert result.code == report["exit_code"] > 2
    assert report["error"] in result.stderr


def test_gate_status_and_close_print_the_gates_state(machine: LocalMachine) -> None:
    machine.solo("gate", "status").expect(1)
    open_gate_of(machine)

    assert machine.solo("gate", "status").expect(0).stdout == "open: converged and judged\n"
    shown = machine.solo("status").expect(0).stdout
    assert shown.startswith("machine   web, production, i-0a1\ngate      open since ")
    assert machine.solo("gate", "close", "--reason", "maintenance").expect(0).stdout == "closed\n"
    assert machine.solo("gate", "close", "--reason", "still").expect(0).stdout == "closed already\n"
    assert machine.solo("gate", "status").expect(1).stdout == "closed: still\n"
    assert not machine.in_service


@pytest.mark.parametrize("open_", [True, False])
def test_status_as_json_is_whole(machine: LocalMachine, open_: bool) -> None:
    if open_:
        open_gate_of(machine)
    whole = machine.solo("status", "--json").expect(0 if open_ else 1)
    gate = machine.solo("gate", "status", "--json").expect(0 if open_ else 1)

    assert set(json.loads(whole.stdout)) == {"ready", "gate", "hidden", "kept", "running", "last_run"}
    assert json.loads(gate.stdout) == json.loads(whole.stdout)["gate"]
    assert json.loads(gate.stdout)["open"] is open_


def test_reason_of_any_bytes_is_printed_escaped(machine: LocalMachine) -> None:
    reason = os.fsdecode(b"\xff\x1b[2J\n")
    machine.solo("gate", "close", "--reason", reason).expect(0)
    machine.solo("gate", "open", "--reason", reason).expect(30)

    assert "\x1b" not in machine.solo("status").expect(1).stdout
    assert json.loads(machine.solo("status", "--json").expect(1).stdout)["last_run"]["exit_code"] == 30


def test_command_that_needs_root_says_so_to_others(machine: LocalMachine) -> None:
    if os.geteuid() != 0:
        pytest.skip("it takes root to become nobody")
    with open_to_all(machine) as root:
        for words in ("run", "boot", "gate close --reason x", "gate open --reason x"):
            refused(as_nobody(root, *words.split()), 64, "Run it as root.")
        as_nobody(root, "status").expect(1)


def as_nobody(machine: LocalMachine, *words: str) -> Result:
    """Run `pyinfra-solo WORDS` as another account.

    Mounts that end with the command show it the engine even when this checkout is below /root.
    """
    site = sysconfig.get_path("purelib")
    for name in ("engine", "site"):
        (machine.root / name).mkdir(exist_ok=True)
    script = f"""
        mount --bind "$1" engine && mount --bind "$2" site && shift 2
        exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups env PYTHONPATH="$PWD/engine:$PWD/site" "$@"
    """
    python = os.path.realpath(sys.executable)
    argv = ["unshare", "--mount", "sh", "-ec", script, "sh", str(ENGINE), site, python, "-m", "pyinfra_solo"]
    return machine.command([*argv, *words])


@contextlib.contextmanager
def open_to_all(machine: LocalMachine) -> Iterator[LocalMachine]:
    """Put the machine where another account can see it: pytest's folders are for one alone."""
    folder = Path("/run" if os.access("/run", os.W_OK) else "/tmp") / f"pyinfra-solo-test-{os.getpid()}"  # noqa: S108
    folder.mkdir(mode=0o755)
    try:
        yield LocalMachine(folder, environment=machine.environment)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("words", [["run"], ["rnu"], ["status"], ["gate", "status"]])
def test_exit_status_is_kept_when_stderr_cannot_be_written(machine: LocalMachine, words: list[str]) -> None:
    """A log on a full disk, or a closed pipe."""
    argv = [sys.executable, "-m", "pyinfra_solo", *words]
    expected = machine.solo(*words).code
    with Path("/dev/full").open("wb", buffering=0) as full:
        done = subprocess.run(argv, env=machine.variables(), stdout=subprocess.PIPE, stderr=full, check=False)

    assert done.returncode == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_boot_stopped_by_a_signal_closes_the_gate_and_names_it(
    machine: LocalMachine, number: signal.Signals
) -> None:
    """At the station identify, which waits for a metadata service that fails."""
    open_gate_of(machine, boot_id=OTHER_BOOT)
    machine.configure(machine='ec2 = "yes"')
    with metadata_service(Instance()) as served:
        served.service.faults.fail = [503] * 10_000
        machine.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = served.url
        argv = [sys.executable, "-m", "pyinfra_solo", "boot"]
        with subprocess.Popen(argv, env=machine.variables(), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            assert any("answered 503" in line for line in process.stderr)
            process.send_signal(number)
            _, rest = process.communicate()
    report = last_report(machine)

    assert process.returncode == 128 + number
    assert f"The run was stopped by {number.name}." in rest
    assert (report["outcome"], report["exit_code"], report["station"]) == ("failed", 128 + number, "identify")
    assert not machine.in_service


def in_a_namespace(script: str) -> list[str]:
    """Return the words of a shell script that may mount, and whose mounts end with it."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script]


@pytest.mark.skipif(
    subprocess.run(in_a_namespace("mount -t tmpfs none /mnt"), check=False, capture_output=True).returncode
    != 0,
    reason="mounting takes root",
)
def test_boot_on_a_full_disk_leaves_its_report_on_the_gates_tmpfs(
    machine: LocalMachine, tmp_path: Path
) -> None:
    ops = tmp_path / "ops"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", ops], check=True)
    machine.configure(ops=f'remotes = ["{ops}"]')
    machine.state.mkdir(parents=True)
    open_gate_of(machine, boot_id=OTHER_BOOT)
    state = machine.root / "var/lib"
    result = machine.command(
        in_a_namespace(
            f"mount -t tmpfs -o size=64k,mode=755 none {state}; mkdir {machine.state}; "
            f"cat /dev/zero > {state}/full 2>/dev/null || true; exec {sys.executable} -m pyinfra_solo boot"
        )
    )
    report = validated((machine.run_folder / "last-run.json").read_bytes())

    assert result.code not in (0, 2)
    assert not machine.in_service
    assert f"report: cannot be written: {machine.state}: ENOSPC No space left on device" in result.stderr
    assert "No space left on device" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert (report["outcome"], report["exit_code"], report["gate"]) == ("failed", result.code, "closed")
    assert machine.solo("status").expect(1).stdout.splitlines()[2].endswith(f" s, exit status {result.code}")
