"""A service as each init system writes it, and the LSB script at work."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations.service import Init, Permission, render, unit_files
from tests.support.programs import is_alive, wait_for
from tests.support.programs import run as run_command
from tests.support.services import Start, service

INITS = get_args(Init)
NASTY = (
    "a b", "it's", 'say "no"', "100%", "%n", "$HOME", "${HOME}", "$(id)", "`id`", "back\\slash", "end\\",
    "#x", "a;b", ";", "a|b&c", "*", "", " ", "é", "\\n", "'\"'\"'", "-e", "end script",
)  # fmt: skip
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if k[0] == 'V'}]))"
SHOWING = [sys.executable, "-c", SHOW, *NASTY]
"""It prints its arguments and variables."""
VARIABLES = {f"V{number}": value for number, value in enumerate(NASTY)}

NO_RESOURCES = ["setpriv", "--bounding-set=-sys_resource"]


@pytest.mark.parametrize("init", INITS)
def test_every_init_gets_the_whole_service(init: Init) -> None:
    text = render(
        service(
            user="shop", group="crew", working_directory="/srv/shop", environment_file="/etc/shop.env",
            stop_timeout=17, open_files=1234, reload_signal="USR1", description="The shop",
        ),
        init,
    )  # fmt: skip
    for word in ("shop", "crew", "/srv/shop", "/etc/shop.env", "17", "1234", "USR1", "The shop", "/bin/sh"):
        assert word in text


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"}, {"name": "a b"}, {"user": "Robert'); --"}, {"group": "a b"}, {"reload_signal": "HUP; rm"},
        {"command": []}, {"command": ["sh"]}, {"command": ["/bin/my sh"]}, {"command": ["/bin/sh", "a\nb"]},
        {"command": ["/bin/sh", "a\0b"]}, {"working_directory": "srv"}, {"working_directory": "/srv/%n"},
        {"environment_file": "/etc/a b"}, {"environment": {"A B": "x"}}, {"stop_timeout": -1},
        {"writable": ["srv"]}, {"writable": "/srv"}, {"writable": ["/srv\nUser=root"]}, {"allow": ["root"]},
        {"allow": "metadata"}, {"working_directory": "/home/demo"}, {"command": ["/root/program"]},
        {"environment": {"A": "x\nExecStartPre=/bin/evil"}}, {"description": "a\nb"}, {"description": 'a"b'},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_written_is_refused(init: Init, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="service"):
        render(service(**wrong), init)


@pytest.mark.parametrize("init", INITS)
def test_a_refused_value_is_not_shown(init: Init) -> None:
    with pytest.raises(DataError) as refusal:
        render(service(environment={"TOKEN": "hunter2\n"}), init)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("allow", [(), *((one,) for one in get_args(Permission))])
def test_systemd_itself_finds_the_unit_good(tmp_path: Path, allow: tuple[Permission, ...]) -> None:
    unit = tmp_path / "demo.service"
    nasty = service(
        command=SHOWING, environment=VARIABLES,
        allow=allow, writable=["/srv/demo"], description="100 % good", notifies=True, reload_signal="HUP", memory_mib=64,
        environment_file="/etc/default/demo",
    )  # fmt: skip
    unit.write_text(render(nasty, "systemd"))
    done = run_command(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit])
    assert [line for line in done.stderr.splitlines() if "demo.service" in line] == []


@pytest.mark.parametrize(
    ("value", "word", "pair"),
    [
        ("100%", '"100%%"', '"K=100%%"'),
        ("$HOME", '"$$HOME"', '"K=$HOME"'),
        ('say "no"', r'"say \"no\""', r'"K=say \"no\""'),
        ("back\\slash", r'"back\\slash"', r'"K=back\\slash"'),
        (";", '";"', '"K=;"'),
    ],
)
def test_systemd_reads_each_value_as_it_is(value: str, word: str, pair: str) -> None:
    """By systemd.service(5), COMMAND LINES, and systemd.exec(5), Environment=."""
    text = render(service(command=["/bin/echo", value], environment={"K": value}), "systemd")
    assert f"ExecStart=/bin/echo {word}\n" in text
    assert f"Environment={pair}\n" in text


def test_upstart_hands_every_value_over_as_it_is(tmp_path: Path) -> None:
    """Upstart runs the lines between `script` and `end script` with `sh -e` (init(5))."""
    lines = '# a comment\nVFILE=from a file\nVQUOTED="two words"\nnot a line\nVX=$(id)\n'
    (tmp_path / "env").write_text(lines)
    text = render(
        service(command=SHOWING, environment=VARIABLES, environment_file=str(tmp_path / "env")), "upstart"
    )
    done = subprocess.run(
        ["sh", "-e", "-c", script_of(text)], capture_output=True, text=True, check=True
    )  # fmt: skip
    words, variables = json.loads(done.stdout)
    assert words == list(NASTY)
    assert [variables[f"V{number}"] for number in range(len(NASTY))] == list(NASTY)
    assert [variables[key] for key in ("VFILE", "VQUOTED", "VX")] == ["from a file", "two words", "$(id)"]


def script_of(job: str) -> str:
    """The script of an Upstart job."""
    return job.split("\nscript\n")[1].split("\nend script\n")[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
@pytest.mark.parametrize(
    ("limited", "files", "words"),
    [([], "321", ""), (["prlimit", "--nofile=99:99", *NO_RESOURCES], "99", "99 open files, not 321: ")],
)
def test_an_upstart_job_has_its_user_and_the_limit_that_it_may_have(
    limited: list[str], files: str, words: str
) -> None:
    """In a container without CAP_SYS_RESOURCE no limit may be raised; `limit nofile` would end the job."""
    command = ["/bin/sh", "-c", "id -un; id -gn; id -G; ulimit -n"]
    text = render(service(user="nobody", group="nogroup", command=command, open_files=321), "upstart")
    done = subprocess.run(
        [*limited, "sh", "-e", "-c", script_of(text)], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.split() == ["nobody", "nogroup", str(pwd.getpwnam("nobody").pw_gid), files]
    assert done.stderr[: len(words)] == words
    assert done.stderr.count("\n") == len(words[:1])


def test_an_upstart_job_has_the_form_of_one() -> None:
    """Each line outside of the script is a stanza that Upstart 1.12 knows (init(5))."""
    text = render(service(reload_signal="HUP"), "upstart")
    outside = text.split("\nscript\n")[0] + text.split("\nend script\n")[1]
    stanzas = [line.split()[0] for line in outside.splitlines() if line and not line.startswith("#")]
    assert set(stanzas) <= {
        "description", "start", "stop", "respawn", "kill", "reload", "umask", "chdir", "console", "post-stop",
    }  # fmt: skip
    assert stanzas.count("start") == stanzas.count("stop") == 1


def test_the_lsb_script_has_no_error_and_all_headers(declare: Start) -> None:
    script = declare()
    subprocess.run(["dash", "-n", script.path], check=True)
    headers = script.path.read_text().split("### BEGIN INIT INFO")[1].split("### END INIT INFO")[0]
    links = [f"{kind}-{verb}" for kind in ("Required", "Default") for verb in ("Start", "Stop")]
    for key in ("Provides", "Short-Description", *links):
        assert f"# {key}:" in headers


def test_start_status_and_stop(declare: Start) -> None:
    script = declare()
    assert script("status") == 3
    assert script("start") == 0
    child, supervisor = script.pid(), script.pid("pid")
    assert script("status") == 0
    assert script("start") == 0, "a second start is none"
    assert (script.pid(), script.pid("pid")) == (child, supervisor)
    assert script("stop") == 0
    assert not is_alive(child)
    assert not is_alive(supervisor)
    assert script("status") == 3
    assert script("stop") == 0, "a second stop is none"


def test_a_child_that_ends_is_restarted(declare: Start) -> None:
    script = declare()
    script("start")
    child = script.pid()
    os.kill(child, signal.SIGKILL)
    wait_for("another child", lambda: script.up() and script.pid() != child, 10)
    assert "ended with status" in script.log.read_text()


def test_log_of_a_child_that_never_ends_is_limited(declare: Start) -> None:
    """Else one app fills the disk. Its end is kept."""
    write = "head -c 30000000 /dev/zero | tr '\\0' x; echo the end; while :; do sleep 0.1; done"
    script = declare(command=["/bin/sh", "-c", write])
    older = script.log.with_name("demo.log.1")
    script("start")
    wait_for("the limit", lambda: older.exists() and older.read_bytes().endswith(b"the end\n"), 20)
    wait_for("an empty log", lambda: script.log.stat().st_size == 0, 20)
    assert older.stat().st_size <= 10 << 20
    assert script.up()
    script("stop")
    wait_for("no process of the script", lambda: not _processes_of(script.path), 10)


def _processes_of(path: Path) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [file.parent.name] if str(path).encode() in file.read_bytes() else []
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_folder_of_a_service_is_its_users_when_it_starts(declare: Start) -> None:
    """No other account can take the name of its socket there, as it can take a port."""
    made = {"user": "nobody", "group": "nogroup", "has_folder": True}
    script = declare(**made, command=["/bin/sh", "-c", "while :; do sleep 0.1; done"])
    script("start")
    folder = script.folder / "service-demo"
    wait_for("the folder", folder.exists, 10)
    assert (folder.owner(), folder.stat().st_mode & 0o777) == ("nobody", 0o755)
    assert "install -d -m 0755 -o nobody -g nogroup /run/service-demo " in render(service(**made), "upstart")


def test_a_child_that_always_ends_is_started_less_and_less_often(declare: Start, tmp_path: Path) -> None:
    script = declare(command=["/bin/sh", "-c", f"date +%s.%N >> {tmp_path}/starts"])
    script("start")
    starts = tmp_path / "starts"
    wait_for("four starts", lambda: starts.exists() and len(starts.read_text().split()) >= 4, 30)
    at = [float(word) for word in starts.read_text().split()[:4]]
    assert at[3] - at[2] > 2 > at[1] - at[0]
    assert script("status") != 0, "it is not up while it waits"
    began = time.monotonic()
    assert script("stop") == 0
    assert time.monotonic() - began < 4, "the wait is ended, too"


def test_stop_hands_term_to_the_child_and_waits_for_it(declare: Start, tmp_path: Path) -> None:
    end = f"trap 'sleep 0.5; echo ended > {tmp_path}/end; exit 0' TERM; while :; do sleep 0.1; done"
    script = declare(command=["/bin/sh", "-c", end])
    script("start")
    time.sleep(0.3)
    assert script("stop") == 0
    assert (tmp_path / "end").read_text() == "ended\n"


def test_a_child_that_will_not_end_is_killed_with_its_children(declare: Start, tmp_path: Path) -> None:
    deaf = f"trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {tmp_path}/grandchild; while :; do sleep 0.1; done' & wait; while :; do sleep 1; done"
    script = declare(command=["/bin/sh", "-c", deaf], stop_timeout=1)
    script("start")
    wait_for("the grandchild", (tmp_path / "grandchild").exists, 5)
    time.sleep(0.2)
    pids = [script.pid(), script.pid("pid"), int((tmp_path / "grandchild").read_text())]
    assert script("stop") == 0
    wait_for("all are gone", lambda: not any(map(is_alive, pids)), 5)


def test_a_child_of_a_killed_supervisor_is_not_left_beside_the_new_one(declare: Start) -> None:
    script = declare()
    script("start")
    orphan = script.pid()
    os.kill(script.pid("pid"), signal.SIGKILL)
    wait_for("the supervisor is gone", lambda: not is_alive(script.pid("pid")), 5)
    assert script("status") == 1
    assert script("start") == 0
    assert not is_alive(orphan)
    assert script.up()


def test_a_pid_that_another_process_has_now_is_not_ours(declare: Start, tmp_path: Path) -> None:
    script = declare()
    for kind in ("pid", "child"):
        (tmp_path / f"demo.{kind}").write_text(f"{os.getpid()} 1\n")
    assert script("status") == 1
    assert script("stop") == 0
    assert is_alive(os.getpid())


def test_reload_sends_its_signal_and_nothing_is_restarted(declare: Start, tmp_path: Path) -> None:
    note = f"trap 'echo got it > {tmp_path}/signal' HUP; while :; do sleep 0.1; done"
    script = declare(command=["/bin/sh", "-c", note], reload_signal="HUP")
    script("start")
    time.sleep(0.3)
    child = script.pid()
    assert script("reload") == 0
    wait_for("the signal", (tmp_path / "signal").exists, 5)
    assert script.pid() == child


def test_restart_gives_another_child(declare: Start) -> None:
    script = declare()
    script("start")
    child = script.pid()
    assert script("restart") == 0
    assert script.up()
    assert script.pid() != child
    assert not is_alive(child)


def test_an_unknown_verb_is_answered_with_the_known_ones(declare: Start) -> None:
    assert declare()("dance") == 2


def test_the_script_hands_every_value_over_as_it_is(declare: Start, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("VFILE=from a file\n")
    values = {"command": SHOWING, "environment": VARIABLES, "environment_file": str(tmp_path / "env")}
    script = declare(**values, restart_delay=60)
    script("start")
    wait_for("it has shown them", lambda: script.log.exists() and "]" in script.log.read_text(), 10)
    words, variables = json.loads(script.log.read_text().splitlines()[0])
    assert words == list(NASTY)
    assert [variables[f"V{number}"] for number in range(len(NASTY))] == list(NASTY)
    assert variables["VFILE"] == "from a file"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_it_runs_as_its_user_in_its_folder(declare: Start) -> None:
    script = declare(
        user="nobody", group="nogroup", working_directory="/usr/lib", open_files=321,
        command=["/bin/sh", "-c", "id -un; id -gn; pwd; ulimit -n; exec sleep 60"],
    )  # fmt: skip
    script("start")
    wait_for("its output", lambda: "321" in script.log.read_text(), 5)
    assert script.log.read_text().split() == ["nobody", "nogroup", "/usr/lib", "321"]
    assert Path(f"/proc/{script.pid()}").stat().st_uid == pwd.getpwnam("nobody").pw_uid


@pytest.mark.parametrize("init", INITS)
def test_each_init_has_its_path_below_etc(init: Init) -> None:
    assert unit_files.path("demo", init).startswith("/etc/")
    with pytest.raises(DataError, match="not a name"):
        unit_files.path("../demo", init)
