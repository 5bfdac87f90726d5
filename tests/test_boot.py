"""The line as `pyinfra-solo` runs it: a real ops repo, a real runtime, a gate below a folder.

The rules that also hold under pyinfra's own command are in test_lines.py.
"""

import json
import os
import shutil
import signal
import subprocess
import sys

from pyinfra_solo.gate import boot_id
from pyinfra_solo.report.records import StationName
from tests.support.line import FILE, Line
from tests.support.loopback import answer, canned_server
from tests.support.machine import ENGINE
from tests.support.programs import is_alive, wait_for
from tests.test_gate import OTHER_BOOT

SLEEP = "server.shell(name='it takes long', commands=f'echo $$ > {data.target}/pid; sleep 60')"
FAILURE = "\nserver.shell(name='it fails', commands='echo the reason; exit 1')"


SEES_THE_GATE = "Path(data.target, 'seen').write_text(str(Path({ping!r}).exists()))\n"


def sleeping(line: Line, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command that converges SLEEP. Return it when its operation runs, and the shell's pid."""
    line.commit(SLEEP)
    process = subprocess.Popen(
        [sys.executable, "-m", "pyinfra_solo", *words],
        env=line.machine.variables(),
        stderr=subprocess.DEVNULL,
    )
    file = line.target / "pid"
    wait_for("the operation", lambda: file.exists() and file.read_text() != "", timeout=30)
    return process, int(file.read_text())


def test_boot_runs_every_station_and_reports_them(line: Line) -> None:
    sha = line.commit(FILE)
    line.machine.solo("boot").expect(0)
    assert line.machine.ping.read_text() == "ok"
    report = line.report
    stations = [one["name"] for one in report["stations"]]
    assert stations == [name for name in StationName if name != StationName.PLAN]
    assert (report["outcome"], report["exit_code"], report["gate"]) == ("ready", 0, "open")
    assert (report["role"], report["stage"], report["sha"]) == ("site", "staging", sha)
    assert report["source"] == str(line.repository.path)
    assert (line.machine.state / "good").read_text().strip() == f"{sha} main"


def test_boot_closes_an_open_gate_before_anything_else(line: Line) -> None:
    """Nothing that was true before this boot counts, even when nothing would change."""
    line.put_in_service()
    line.commit(SEES_THE_GATE.format(ping=str(line.machine.ping)) + FILE)
    statement = line.machine.ping.parents[1] / "statement.json"
    statement.write_text(statement.read_text().replace(boot_id(), OTHER_BOOT))
    line.machine.solo("boot").expect(0)
    assert (line.target / "seen").read_text() == "False"


def test_boot_that_is_tried_again_leaves_the_gate_that_a_run_has_opened(line: Line) -> None:
    """A person mends the machine and runs by hand, then the unit's next try comes."""
    line.put_in_service()
    line.commit(SEES_THE_GATE.format(ping=str(line.machine.ping)) + FILE)
    line.machine.solo("boot").expect(0)
    assert (line.target / "seen").read_text() == "True"
    line.machine.configure(ops='remotes = ["/nowhere"]\nfallback = "none"')
    line.machine.solo("boot").expect(10)
    assert line.machine.in_service
    assert line.machine.in_service


def test_boot_with_a_failed_operation_names_it_everywhere(line: Line) -> None:
    line.commit(FILE + FAILURE)
    failed = line.machine.solo("boot").expect(1)
    error = "The operation 'site | it fails' failed: the reason"
    assert failed.stderr.splitlines()[-1] == f"pyinfra-solo: {error}"
    assert not line.machine.in_service
    report = line.report
    assert (report["outcome"], report["station"], report["error"]) == ("failed", "converge", error)
    assert report["operations"][-1]["output"] == ["the reason"]
    assert line.close_reason == error


def test_boot_with_a_failed_check_reports_the_finding(line: Line) -> None:
    line.commit(FILE, healthy='checks.command("false", within=0.1)')
    line.machine.solo("boot").expect(30)
    assert not line.machine.in_service
    assert [finding["passed"] for finding in line.report["findings"]] == [False]


def test_boot_without_a_remote_uses_the_commit_on_disk(line: Line) -> None:
    line.put_in_service()
    shutil.rmtree(line.repository.path)
    line.machine.solo("boot").expect(0)
    assert line.report["source"] == "disk"
    assert line.machine.in_service


def test_commit_without_a_lock_file_is_refused(line: Line) -> None:
    line.commit(FILE, more={"requirements.lock": None})
    assert "requirements.lock" in line.machine.solo("boot").expect(13).stderr


def test_checkout_with_an_engine_is_converged_by_it(line: Line) -> None:
    """A commit can change everything but the code that would fetch the repair."""
    engine = {
        f"bootstrap/{path.relative_to(ENGINE)}": path.read_text()
        for path in (ENGINE / "pyinfra_solo").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    note = "import pyinfra_solo\nPath(data.target, 'engine').write_text(pyinfra_solo.__file__)"
    sha = line.commit(note, more=engine)
    line.machine.solo("boot").expect(0)
    own = line.machine.state / "checkouts" / sha / "bootstrap/pyinfra_solo/__init__.py"
    assert (line.target / "engine").read_text() == str(own)


def test_boot_that_is_stopped_ends_its_operation(line: Line) -> None:
    process, operation = sleeping(line, "boot")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert not is_alive(operation)
    assert not line.machine.in_service
    assert (line.report["outcome"], line.report["station"]) == ("failed", "converge")


def test_killed_run_holds_the_lock_until_its_operation_ends(line: Line) -> None:
    """Otherwise the next run would work on the machine at the same time as an apt that lives on."""
    process, operation = sleeping(line, "run")
    process.kill()
    process.wait()

    def running() -> dict[str, object] | None:
        found: dict[str, object] | None
        found = json.loads(line.machine.solo("status", "--json").expect(1).stdout)["running"]
        return found

    owner = running()
    assert owner
    assert (owner["pid"], owner["station"]) == (process.pid, "converge")
    os.killpg(operation, signal.SIGKILL)
    wait_for("the lock", lambda: running() is None, timeout=30)
    line.commit(FILE)
    line.machine.solo("boot").expect(0)
    assert line.machine.in_service


def test_run_shows_what_it_closes_and_changes(line: Line) -> None:
    line.put_in_service()
    line.machine.solo("run", "--detailed-exitcodes").expect(0)
    line.commit(FILE + line.note_gate)
    changed = line.machine.solo("run", "--detailed-exitcodes").expect(2)
    assert "converge: gate closed before the first change" in changed.stderr
    assert "converge: 1 of 2 operations changed something" in changed.stderr


def test_run_without_the_gate_leaves_it_closed(line: Line) -> None:
    line.commit(FILE)
    line.machine.solo("run", "--no-gate").expect(0)
    assert (line.target / "file").read_text() == "hello"
    assert not line.machine.in_service
    assert line.report["outcome"] == "done"


def test_run_that_fails_prints_its_whole_report_as_json(line: Line) -> None:
    line.commit(FILE + FAILURE)
    report = json.loads(line.machine.solo("run", "--json").expect(1).stdout)
    assert [one["failed"] for one in report["operations"]] == [False, True]
    assert report["stations"][-1]["outcome"] == "failed"


def test_gate_closed_by_hand_opens_only_when_checks_pass(line: Line) -> None:
    well = line.target / "well"
    well.touch()
    line.put_in_service(healthy='checks.command(f"test -e {data.target}/well", within=0.5)')
    line.machine.solo("gate", "close", "--reason", "a core dump").expect(0)
    assert not line.machine.in_service
    assert line.close_reason == "a core dump"
    well.unlink()
    line.machine.solo("gate", "open", "--reason", "inspected").expect(30)
    assert not line.machine.in_service
    well.touch()
    line.machine.solo("gate", "open", "--reason", "inspected").expect(0)
    assert line.machine.in_service


def test_change_without_the_gate_leaves_no_older_statement(line: Line) -> None:
    """With drain never the gate was open during the change, and would vouch for the old commit."""
    line.put_in_service()
    line.settings(limits='drain = "never"')
    line.commit(FILE.replace("data.text", "'another'"))
    line.machine.solo("run", "--no-gate").expect(0)
    assert not line.machine.in_service


def test_close_says_that_another_page_answers(line: Line) -> None:
    """Such as a site that answers every path, from an update with drain never."""
    with canned_server(answer("404 Not Found")) as server:
        line.put_in_service(FILE, f"checks.http({server.url!r}, status=[404])")
        server.answers = [answer("200 OK", b"<html>")]
        closed = line.machine.solo("gate", "close", "--reason", "a test").expect(30)
    assert f"Port {server.port} answers /ping.html with 200 although the gate is closed" in closed.stderr
    assert not line.machine.in_service


def test_close_during_gate_open_stays_closed(line: Line) -> None:
    (line.target / "go").touch()
    line.put_in_service(healthy='checks.command(f"test -e {data.target}/go", within=30)')
    line.machine.solo("gate", "close", "--reason", "first").expect(0)
    (line.target / "go").unlink()
    opening = subprocess.Popen(
        [sys.executable, "-m", "pyinfra_solo", "gate", "open", "--reason", "it is well"],
        env=line.machine.variables(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for("the check", lambda: line.report["station"] == "judge", timeout=30)
    line.machine.solo("gate", "close", "--reason", "second").expect(0)
    (line.target / "go").touch()
    assert opening.wait(timeout=60) == 21
    assert not line.machine.in_service


def test_last_good_commit_of_another_ref_is_no_fallback(line: Line) -> None:
    """An experiment by hand must not become what a boot without a remote converges."""
    line.put_in_service()
    line.settings('fallback = "last-good"')
    line.machine.solo("run", "--ref", line.repository.tip()).expect(0)
    shutil.rmtree(line.repository.path)
    assert "no last-good commit of 'main'" in line.machine.solo("boot").expect(10).stderr
