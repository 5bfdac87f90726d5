"""The whole line, as the command runs it: a real ops repo, a real runtime, a gate below a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import stamps
from tests.support.line import FILE, Line
from tests.support.machine import ENGINE
from tests.support.programs import is_alive, wait_for


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


class TestABoot:
    def test_ends_with_an_open_gate_and_a_statement_of_what_it_vouches_for(self, line: Line) -> None:
        sha = line.commit(FILE + line.note_gate, healthy='checks.command(f"test -f {data.target}/file")')
        line.machine.solo("boot").expect(0)
        assert line.noted_gate == ["closed"]
        assert line.machine.ping.read_text() == "ok"
        assert [path.name for path in line.machine.ping.parent.iterdir()] == ["ping.html"]
        statement = json.loads((line.machine.run_folder / "statement.json").read_text())
        assert (statement["role"], statement["stage"], statement["sha"]) == ("site", "staging", sha)
        assert statement["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert [check["target"] for check in statement["checks"]] == [f"test -f {line.target}/file"]
        report = line.report
        assert [one["name"] for one in report["stations"]] == [
            "close gate", "identify", "fetch", "prepare", "resolve", "converge", "judge", "open gate",
        ]  # fmt: skip
        assert (report["outcome"], report["exit_code"], report["sha"], report["gate"]) == (
            "ready",
            0,
            sha,
            "open",
        )
        assert (line.machine.state / "good").read_text().strip() == sha

    def test_closes_first_whatever_there_was(self, line: Line) -> None:
        """Nothing that was true before this boot counts, even when nothing would change."""
        line.put_in_service()
        line.commit(
            "Path(data.target, 'seen').write_text(str(Path("
            + repr(str(line.machine.ping))
            + ").exists()))\n"
            + FILE
        )
        line.machine.solo("boot").expect(0)
        assert (line.target / "seen").read_text() == "False"
        assert line.machine.in_service

    @pytest.mark.parametrize(
        ("settings", "code"),
        [("this is not TOML", 13), ('[ops]\nremotes = ["/nowhere"]\non_disk = "never"\n[machine]\nec2 = "no"\nrole = "site"\nstage = "staging"', 10)],
        ids=["unreadable settings", "no source"],
    )  # fmt: skip
    def test_that_fails_early_leaves_the_gate_closed(self, line: Line, settings: str, code: int) -> None:
        line.put_in_service()
        line.machine.config.write_text(settings)
        line.machine.solo("boot").expect(code)
        assert not line.machine.in_service
        assert line.report["exit_code"] == code

    def test_with_an_operation_that_fails_stays_out_and_says_which(self, line: Line) -> None:
        line.commit(FILE + "\nserver.shell(name='it fails', commands='echo the reason; exit 1')")
        said = line.machine.solo("boot").expect(1)
        assert (
            said.stderr.splitlines()[-1] == "pyinfra-solo: The operation 'site | it fails' failed: the reason"
        )
        assert not line.machine.in_service
        report = line.report
        assert (report["outcome"], report["station"]) == ("failed", "converge")
        assert report["operations"][-1]["output"] == ["the reason"]
        assert line.close_reason == report["error"]

    def test_that_lied_cannot_open_the_gate(self, line: Line) -> None:
        """Each operation ended well; a later one undid what an earlier one did."""
        line.commit(
            FILE + "\nserver.shell(name='all is well', commands=f'rm {data.target}/file')",
            healthy='checks.command(f"test -f {data.target}/file", within=0.5)',
        )
        line.machine.solo("boot").expect(30)
        assert not line.machine.in_service
        assert [finding["passed"] for finding in line.report["findings"]] == [False]

    def test_without_a_remote_goes_on_with_what_is_on_disk_and_says_so(self, line: Line) -> None:
        line.put_in_service()
        shutil.rmtree(line.repository.path)
        said = line.machine.solo("boot").expect(0)
        assert "NO REMOTE ANSWERED" in said.stderr
        assert line.report["source"] == "disk"
        assert line.machine.in_service

    def test_without_a_lock_file_or_an_engine_says_what_to_commit(self, line: Line) -> None:
        line.commit(FILE, more={"requirements.lock": None})
        assert "requirements.lock" in line.machine.solo("boot").expect(13).stderr
        line.commit(FILE)
        for engine in line.machine.root.glob("opt/pyinfra-solo/runtimes/*/lib/*/site-packages/pyinfra_solo"):
            engine.unlink()
        assert "The ops repo has no engine" in line.machine.solo("boot").expect(13).stderr

    def test_converges_with_the_checkout_s_own_engine(self, line: Line) -> None:
        """A commit can change everything but the code that would fetch the repair."""
        sources = (ENGINE / "pyinfra_solo").rglob("*")
        engine = {
            f"bootstrap/pyinfra_solo/{path.relative_to(ENGINE / 'pyinfra_solo')}": path.read_text()
            for path in sources
            if path.is_file() and path.suffix != ".pyc"
        }
        note = "import pyinfra_solo\nPath(data.target, 'engine').write_text(pyinfra_solo.__file__)"
        sha = line.commit(note, more=engine)
        line.machine.solo("boot").expect(0)
        own = line.machine.state / "checkouts" / sha / "bootstrap/pyinfra_solo/__init__.py"
        assert (line.target / "engine").read_text() == str(own)

    def test_that_is_told_to_stop_ends_all_of_it_and_stays_out(self, line: Line) -> None:
        line.commit("server.shell(name='it takes long', commands=f'echo $$ > {data.target}/pid; sleep 60')")
        process = _started(line, "boot")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
        assert not is_alive(int((line.target / "pid").read_text()))
        assert not line.machine.in_service
        assert (line.report["outcome"], line.report["station"]) == ("failed", "converge")

    def test_that_was_killed_leaves_a_report_of_where_it_was_and_the_next_one_is_well(
        self, line: Line
    ) -> None:
        line.commit("server.shell(name='it takes long', commands=f'echo $$ > {data.target}/pid; sleep 60')")
        process = _started(line, "boot")
        process.kill()
        process.wait()
        report = line.report
        assert (report["outcome"], report["station"]) == ("running", "converge")
        events = (line.machine.state / "reports" / f"{report['run']}.events").read_text().splitlines()
        last = [event for event in map(json.loads, events) if event["event"] == "starting"][-1]
        assert last == {"event": "starting", "number": 1, "name": "site | it takes long"}
        os.killpg(int((line.target / "pid").read_text()), signal.SIGKILL)
        line.commit(FILE)
        line.machine.solo("boot").expect(0)
        assert line.machine.in_service

    def test_that_was_killed_holds_the_lock_until_its_operation_has_ended(self, line: Line) -> None:
        """Otherwise the next run would work on the machine at the same time as an apt that lives on."""
        line.commit(f"server.shell(name='it takes long', commands='echo $$ > {line.target}/pid; sleep 60')")
        run = _started(line, "run")
        run.kill()
        run.wait()
        waited = json.loads(line.machine.solo("status", "--json").expect(1).stdout)["running"]
        assert waited["pid"] == run.pid
        assert waited["doing"] == "converge"
        os.killpg(int((line.target / "pid").read_text()), signal.SIGKILL)

        def is_free() -> bool:
            return json.loads(line.machine.solo("status", "--json").stdout)["running"] is None

        wait_for("the lock", is_free, timeout=30)


def _started(line: Line, *words: str) -> subprocess.Popen[bytes]:
    """The command, once its operation runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pyinfra_solo", *words],
        env=line.machine.variables(),
        stderr=subprocess.DEVNULL,
    )
    file = line.target / "pid"
    wait_for("the operation", lambda: file.exists() and file.read_text() != "", timeout=30)
    return process


class TestARunByHand:
    def test_with_nothing_to_change_does_not_touch_the_gate(self, line: Line) -> None:
        line.put_in_service()
        before = (
            stamps(line.machine.run_folder / "gate"),
            (line.machine.run_folder / "statement.json").stat().st_ino,
        )
        line.machine.solo("run", "--detailed-exitcodes").expect(0)
        after = (
            stamps(line.machine.run_folder / "gate"),
            (line.machine.run_folder / "statement.json").stat().st_ino,
        )
        assert after == before

    def test_closes_before_the_first_change_and_opens_after_the_last(self, line: Line) -> None:
        line.put_in_service()
        line.commit(FILE + line.note_gate + line.note_gate)
        said = line.machine.solo("run", "--detailed-exitcodes").expect(2)
        assert line.noted_gate == ["closed", "closed"]
        assert "the gate is closed: something changes" in said.stderr
        assert line.machine.in_service

    @pytest.mark.parametrize(("drain", "seen"), [("never", "open"), ("always", "closed")])
    def test_treats_a_machine_in_service_as_the_settings_say(self, line: Line, drain: str, seen: str) -> None:
        line.put_in_service()
        line.settings(limits=f'drain = "{drain}"')
        line.commit(
            "Path(data.target, 'seen').write_text('open ' if Path("
            + repr(str(line.machine.ping))
            + ").exists() else 'closed ')\n"
            + FILE
        )
        line.machine.solo("run").expect(0)
        assert line.noted_gate == [seen]
        line.commit(FILE + line.note_gate)
        line.machine.solo("run").expect(0)
        assert line.noted_gate == [seen, seen]
        assert line.machine.in_service

    def test_that_fails_after_a_change_leaves_the_gate_closed(self, line: Line) -> None:
        """Also where a change alone would not have closed it."""
        line.put_in_service()
        line.settings(limits='drain = "never"')
        line.commit(
            FILE.replace("data.text", "'another'") + "\nserver.shell(name='it fails', commands='exit 1')"
        )
        line.machine.solo("run").expect(1)
        assert not line.machine.in_service

    def test_that_fails_before_any_change_leaves_a_machine_in_service_in(self, line: Line) -> None:
        line.put_in_service()
        line.commit(FILE, more={"deploy.py": "def (\n"})
        line.machine.solo("run").expect(1)
        assert line.machine.in_service
        shutil.rmtree(line.repository.path)
        line.settings('on_disk = "never"')
        line.machine.solo("run").expect(10)
        line.machine.solo("run", "--role", "absent", "--ref", "-x").expect(64)
        assert line.machine.in_service

    def test_whose_checks_say_no_closes_the_gate_though_nothing_was_changed(self, line: Line) -> None:
        well = line.target / "well"
        well.touch()
        line.put_in_service(healthy='checks.command(f"test -e {data.target}/well", within=0.5)')
        well.unlink()
        line.machine.solo("run").expect(30)
        assert not line.machine.in_service

    def test_without_the_gate_converges_and_leaves_it_closed(self, line: Line) -> None:
        line.commit(FILE)
        line.machine.solo("run", "--no-gate").expect(0)
        assert (line.target / "file").read_text() == "hello"
        assert not line.machine.in_service
        assert line.report["outcome"] == "done"

    def test_takes_values_and_gives_its_report_also_of_a_failure(self, line: Line) -> None:
        line.commit(FILE + "\nserver.shell(name='it fails', commands='exit 1')")
        said = line.machine.solo("run", "--data", "text=goodbye", "--json").expect(1)
        report = json.loads(said.stdout)
        assert (line.target / "file").read_text() == "goodbye"
        assert [one["failed"] for one in report["operations"]] == [False, True]


class TestTheGateByHand:
    def test_is_closed_and_opened_again_by_an_operator(self, line: Line) -> None:
        well = line.target / "well"
        well.touch()
        line.put_in_service(healthy='checks.command(f"test -e {data.target}/well", within=0.5)')
        line.machine.solo("gate", "close", "--reason", "a core dump").expect(0)
        assert not line.machine.in_service
        assert line.close_reason == "a core dump"
        well.unlink()
        line.machine.solo("gate", "open", "--reason", "looked at").expect(30)
        assert not line.machine.in_service
        well.touch()
        line.machine.solo("gate", "open", "--reason", "looked at").expect(0)
        assert line.machine.in_service

    def test_is_not_opened_where_no_run_of_this_boot_vouches_for_the_machine(self, line: Line) -> None:
        line.machine.solo("gate", "open", "--reason", "hope").expect(30)
        line.put_in_service()
        line.machine.solo("gate", "close", "--reason", "power off").expect(0)
        _of_another_boot(line)
        line.machine.solo("gate", "open", "--reason", "hope").expect(30)
        assert not line.machine.in_service

    def test_is_closed_when_its_statement_is_of_another_boot(self, line: Line) -> None:
        """/run is a tmpfs, but an image may have been made of a machine that kept it on disk."""
        line.put_in_service()
        _of_another_boot(line)
        assert "of another boot" in line.close_reason
        assert not line.machine.in_service


def _of_another_boot(line: Line) -> None:
    path = line.machine.run_folder / "statement.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another"}))
