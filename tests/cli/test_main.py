"""The command, as its users meet it: a process with words, an exit status, stdout for data, stderr for talk."""

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
from tests.system.test_lock import another_run
from tests.test_gate import statement

COMMANDS = [
    "boot",
    "run",
    "plan",
    "status",
    "report",
    "gate",
    "gate status",
    "gate close",
    "gate open",
    "install",
    "init",
]
NOBODY = 65534


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    """Not on EC2, role site, stage staging, and without a remote; no real service is ever asked."""
    return LocalMachine(tmp_path / "machine", environment={"AWS_EC2_METADATA_SERVICE_ENDPOINT": NOWHERE})


@contextlib.contextmanager
def inside(machine: LocalMachine) -> Iterator[None]:
    """This process's paths are the machine's, to leave something there."""
    with pytest.MonkeyPatch.context() as patch:
        use_root(machine.root, patch)
        yield


def open_gate_of(machine: LocalMachine) -> None:
    from pyinfra_solo.gate import open_gate

    with inside(machine):
        open_gate(statement())


def last_report(machine: LocalMachine) -> dict[str, Any]:
    return validated((machine.state / "last-run.json").read_bytes())


def refused(said: Result, code: int, text: str) -> None:
    """One line that says what is wrong, no traceback, and no data."""
    said.expect(code)
    assert said.stdout == ""
    assert text in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_every_command_explains_itself(machine: LocalMachine, words: str) -> None:
    said = machine.solo(*words.split(), "--help").expect(0)

    assert said.stdout.startswith("Usage: ")
    assert said.stderr == ""
    assert [path.name for path in machine.root.iterdir()] == ["etc"]


def test_the_help_names_every_command(machine: LocalMachine) -> None:
    said = machine.solo("-h").expect(0)

    assert all(f"\n  {words.split()[0]} " in said.stdout for words in COMMANDS)


def test_the_version_is_told(machine: LocalMachine) -> None:
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
        (["boot", "now"], "unexpected extra argument"),
        (["boot", "--json"], "No such option"),
        (["run", "web"], "unexpected extra argument"),
        (["run", "--data", "port"], "--data 'port…' is not KEY=VALUE."),
        (["run", "--ref", "--upload-pack=x"], "'--upload-pack=x' is not a branch, a tag or a commit"),
        (["run", "--ref", "a..b"], "'a..b' is not a branch"),
        (["plan", "--blank"], "--blank needs --dir"),
        (["plan", "--dir", "/no/such/folder"], "does not exist"),
        (["plan", "--no-gate"], "No such option"),
        (["status", "web"], "unexpected extra argument"),
        (["status", "--jsn"], "No such option"),
        (["status", "--role", "web"], "No such option"),
        (["gate"], "Usage: "),
        (["gate", "shut"], "No such command 'shut'"),
        (["gate", "status", "--reason", "x"], "No such option"),
        (["gate", "status", "--jsn"], "No such option"),
        (["gate", "status", "now"], "unexpected extra argument"),
        (["gate", "close"], "Missing option '--reason'"),
        (["gate", "close", "maintenance"], "Missing option '--reason'"),
        (["gate", "close", "--reason"], "requires an argument"),
        (["gate", "open"], "Missing option '--reason'"),
        (["gate", "open", "--force"], "No such option"),
        (["gate", "open", "--reason"], "requires an argument"),
        (["install", "--init", "openrc"], "'openrc' is not one of"),
        (["install", "systemd"], "unexpected extra argument"),
        (["install", "--nwo"], "No such option"),
        (["init"], "Missing argument 'DIRECTORY'"),
        (["init", "a", "b"], "unexpected extra argument"),
        (["init", "--force", "a"], "No such option"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_command_line_is_told_and_touches_nothing(
    machine: LocalMachine, words: list[str], text: str
) -> None:
    refused(machine.solo(*words), 64, text)

    assert [path.name for path in machine.root.iterdir()] == ["etc"]


def test_a_wrong_flag_does_not_show_what_may_be_a_secret(machine: LocalMachine) -> None:
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
def test_each_failure_has_its_exit_status_its_line_and_its_report(
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
def test_json_is_whole_also_on_failure(machine: LocalMachine, command: str, settings: dict[str, str]) -> None:
    machine.configure(**settings)
    said = machine.solo(command, "--json")
    report = validated(said.stdout)

    assert said.code == report["exit_code"] > 2
    assert report["error"] in said.stderr


def test_who_is_kept_out_is_told_by_whom(machine: LocalMachine) -> None:
    machine.configure(limits="lock = 0")
    machine.run_folder.mkdir(parents=True)
    with another_run(machine.run_folder / "lock") as other:
        said = machine.solo("run", "--json").expect(20)
        shown = machine.solo("status").stdout

    assert f"run {other.pid}, which has held the lock for " in said.stderr
    assert "and is at converge" in said.stderr
    assert validated(said.stdout)["exit_code"] == 20
    assert f"running   run {other.pid}, " in shown
    assert not (machine.state / "last-run.json").exists()


def test_a_gate_is_seen_closed_and_opened_by_its_command(machine: LocalMachine) -> None:
    machine.solo("gate", "status").expect(1)
    open_gate_of(machine)

    assert machine.solo("gate", "status").expect(0).stdout == "open: converged and judged\n"
    assert (
        machine.solo("status")
        .expect(0)
        .stdout.startswith("machine   web, production, i-0a1\ngate      open since ")
    )
    assert machine.solo("gate", "close", "--reason", "a look inside").expect(0).stdout == "closed\n"
    assert machine.solo("gate", "close", "--reason", "still").expect(0).stdout == "closed already\n"
    assert machine.solo("gate", "status").expect(1).stdout == "closed: still\n"
    assert not machine.in_service


@pytest.mark.parametrize("open_", [True, False])
def test_status_as_json_is_whole(machine: LocalMachine, open_: bool) -> None:
    if open_:
        open_gate_of(machine)
    whole = machine.solo("status", "--json").expect(0 if open_ else 1)
    gate = machine.solo("gate", "status", "--json").expect(0 if open_ else 1)

    assert set(json.loads(whole.stdout)) == {"ready", "gate", "running", "last_run"}
    assert json.loads(gate.stdout) == json.loads(whole.stdout)["gate"]
    assert json.loads(gate.stdout)["open"] is open_


def test_a_reason_may_be_any_bytes(machine: LocalMachine) -> None:
    reason = os.fsdecode(b"\xff\x1b[2J\n")
    machine.solo("gate", "close", "--reason", reason).expect(0)
    machine.solo("gate", "open", "--reason", reason).expect(30)

    assert "\x1b" not in machine.solo("status").expect(1).stdout
    assert json.loads(machine.solo("status", "--json").expect(1).stdout)["last_run"]["exit_code"] == 30


def test_who_may_not_is_told_to_be_root(machine: LocalMachine) -> None:
    if os.geteuid() != 0:
        pytest.skip("it takes root to become nobody")
    with open_to_all(machine) as root:
        for words in (
            ["run"],
            ["boot"],
            ["gate", "close", "--reason", "x"],
            ["gate", "open", "--reason", "x"],
        ):
            refused(as_nobody(root, *words), 64, "Run it as root.")
        as_nobody(root, "status").expect(1)


def as_nobody(machine: LocalMachine, *words: str) -> Result:
    """`pyinfra-solo WORDS` by another account, which sees the engine also when this checkout is below
    /root: by mounts that end with the command."""
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
    """The machine where another account can see it: pytest's folders are for one alone."""
    folder = Path("/run" if os.access("/run", os.W_OK) else "/tmp") / f"pyinfra-solo-test-{os.getpid()}"  # noqa: S108
    folder.mkdir(mode=0o755)
    try:
        yield LocalMachine(folder, environment=machine.environment)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("words", [["run"], ["rnu"], ["status"], ["gate", "status"]])
def test_an_exit_status_holds_when_nobody_hears(machine: LocalMachine, words: list[str]) -> None:
    """A log on a full disk, a closed pipe: the status says it all the same."""
    argv = [sys.executable, "-m", "pyinfra_solo", *words]
    expected = machine.solo(*words).code
    with Path("/dev/full").open("wb", buffering=0) as full:
        done = subprocess.run(argv, env=machine.variables(), stdout=subprocess.PIPE, stderr=full, check=False)

    assert done.returncode == expected


def started(machine: LocalMachine, *words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pyinfra_solo", *words],
        env=machine.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


@contextlib.contextmanager
def booting_at_identify(machine: LocalMachine) -> Iterator[subprocess.Popen[str]]:
    """A boot that has been in service, and now waits for a metadata service that fails."""
    open_gate_of(machine)
    machine.configure(machine='ec2 = "yes"')
    with metadata_service(Instance()) as served:
        served.service.faults.fail = [503] * 10_000
        machine.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = served.url
        with started(machine, "boot") as process:
            assert process.stderr
            for line in process.stderr:
                if "answered 503" in line:
                    break
            try:
                yield process
            finally:
                process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_boot_that_is_stopped_leaves_the_gate_closed_and_says_so(
    machine: LocalMachine, number: signal.Signals
) -> None:
    with booting_at_identify(machine) as process:
        process.send_signal(number)
        _, said = process.communicate()
    report = last_report(machine)

    assert process.returncode == 128 + number
    assert f"The run was stopped by {number.name}." in said
    assert (report["outcome"], report["exit_code"], report["station"]) == ("failed", 128 + number, "identify")
    assert not machine.in_service


def test_a_boot_that_is_killed_leaves_a_valid_report_that_says_where_it_was(machine: LocalMachine) -> None:
    with booting_at_identify(machine) as process:
        process.kill()
        process.wait()
    report = last_report(machine)

    assert (report["outcome"], report["exit_code"], report["station"]) == ("running", None, "identify")
    assert not machine.in_service
    shown = machine.solo("status").expect(1).stdout
    assert "`boot`: killed at identify\n" in shown
    assert "gate      closed since " in shown
    machine.configure()
    machine.solo("run").expect(10)  # not 20: the lock is free


def in_a_namespace(script: str) -> list[str]:
    """A shell script that may mount, and whose mounts end with it."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script]


@pytest.mark.skipif(
    subprocess.run(in_a_namespace("mount -t tmpfs none /mnt"), check=False, capture_output=True).returncode
    != 0,
    reason="mounting takes root",
)
def test_a_boot_on_a_full_disk_closes_the_gate_says_why_and_leaves_its_report_on_the_gate_s_tmpfs(
    machine: LocalMachine, tmp_path: Path
) -> None:
    ops = tmp_path / "ops"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", ops], check=True)
    machine.configure(ops=f'remotes = ["{ops}"]')
    machine.state.mkdir(parents=True)
    open_gate_of(machine)
    state = machine.root / "var/lib"
    said = machine.command(
        in_a_namespace(
            f"mount -t tmpfs -o size=64k,mode=755 none {state}; mkdir {machine.state}; "
            f"cat /dev/zero > {state}/full 2>/dev/null || true; exec {sys.executable} -m pyinfra_solo boot"
        )
    )
    report = validated((machine.run_folder / "last-run.json").read_bytes())

    assert said.code not in (0, 2)
    assert not machine.in_service
    assert f"report: cannot be written: {machine.state}: ENOSPC No space left on device" in said.stderr
    assert "No space left on device" in said.stderr.splitlines()[-1]
    assert "Traceback" not in said.stderr
    assert (report["outcome"], report["exit_code"], report["gate"]) == ("failed", said.code, "closed")
    assert machine.solo("status").expect(1).stdout.splitlines()[2].endswith(f" s, exit status {said.code}")


def test_a_command_that_only_looks_loads_no_engine(machine: LocalMachine) -> None:
    """It is polled: pyinfra and boto3 would cost it a second each time."""
    script = "import sys\nfrom pyinfra_solo.cli import main as cli\nsys.argv[1:] = ['status']\ntry: cli.main()\nexcept SystemExit: pass\n"
    script += "print([name for name in ('pyinfra', 'boto3', 'git', 'gevent') if name in sys.modules])"

    assert machine.command([sys.executable, "-c", script]).expect(0).stdout.splitlines()[-1] == "[]"
