"""The command `pyinfra-solo report`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pyinfra_solo.report.records import Report, encode
from tests.cli.test_main import as_nobody, open_to_all, refused
from tests.report.test_records import validated, whole
from tests.support.machine import LocalMachine

RUN = "20261121T000000Z-abcdef"
HEAVY = ("pyinfra", "boto3", "git", "gevent", "jinja2")


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    """A machine that has run twice."""
    made = LocalMachine(tmp_path / "machine")
    (made.state / "reports").mkdir(parents=True)
    older = whole()
    older.run, older.role = "20261120T000000Z-abcdef", "older"
    keep(made, f"reports/{older.run}.json", older)
    keep(made, f"reports/{RUN}.json", whole())
    keep(made, "last-run.json", whole())
    return made


def keep(machine: LocalMachine, name: str, report: Report) -> None:
    path = machine.state / name
    path.write_bytes(encode(report))
    path.chmod(0o600)


def test_report_is_the_summary_of_the_last_run(machine: LocalMachine) -> None:
    done = machine.solo("report").expect(0)

    assert done.stderr == ""
    first = f"run       {RUN}, `boot`: failed in 12.5 s, exit status 30, commit aaaaaaaaaaaa from "
    assert done.stdout.startswith(first)


def test_report_of_an_older_run_is_found_by_its_id(machine: LocalMachine) -> None:
    assert "machine   older, " in machine.solo("report", "20261120T000000Z-abcdef").expect(0).stdout


def test_report_as_json_is_the_whole_report(machine: LocalMachine) -> None:
    done = machine.solo("report", "--json").expect(0)

    assert msgspec.convert(validated(done.stdout), Report) == whole()


@pytest.mark.parametrize("flag", ["--slow", "--timeline"])
def test_report_keeps_to_the_terminal_s_width(machine: LocalMachine, flag: str) -> None:
    machine.environment["COLUMNS"] = "72"
    done = machine.solo("report", flag).expect(0)

    assert done.stderr == ""
    assert "1.50" in done.stdout or flag == "--timeline"
    assert max(map(len, done.stdout.splitlines())) <= 72 or "The boot is not shown" in done.stdout


def test_timeline_in_an_ascii_locale_has_other_characters(machine: LocalMachine) -> None:
    machine.environment |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    assert "fetch" in machine.solo("report", "--timeline").expect(0).stdout


def test_html_is_written_to_the_named_file(machine: LocalMachine, tmp_path: Path) -> None:
    done = machine.solo("report", RUN, "--html", str(tmp_path / "page.html")).expect(0)

    assert done.stdout == done.stderr == ""
    assert "nginx runs" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["20261119T000000Z-abcdef"], "The newest are: 20261121T000000Z-abcdef, 20261120T000000Z-abcdef."),
        (["../last-run"], "There is no report of a run '../last-run'."),
        (["--html", "/no/such/page.html"], "--html /no/such/page.html: No such file or directory. Name a file"),
        (["--slow", "--timeline"], "Give one."),
        (["--html"], "requires an argument"),
        (["one", "two"], "unexpected extra argument"),
    ],
    ids=["unknown", "a path", "unwritable", "two", "no file", "two runs"],
)  # fmt: skip
def test_wrong_arguments_are_refused_with_the_reason(
    machine: LocalMachine, words: list[str], text: str
) -> None:
    refused(machine.solo("report", *words), 64, text)


def test_wrong_arguments_with_json_are_an_error_in_json(machine: LocalMachine) -> None:
    done = machine.solo("report", "--json", "--slow").expect(64)

    assert json.loads(done.stdout)["exit_code"] == 64


@pytest.mark.parametrize("words", [[], [RUN]], ids=["last", "by name"])
def test_report_of_a_machine_that_never_ran_says_so(tmp_path: Path, words: list[str]) -> None:
    refused(LocalMachine(tmp_path / "new").solo("report", *words), 1, "There is no report yet")


def test_report_by_id_is_never_that_of_another_run(machine: LocalMachine) -> None:
    """Where the disk took no reports, only that of the last run is there."""
    shutil.rmtree(machine.state / "reports")

    refused(machine.solo("report", RUN), 1, "There is no report yet")
    machine.solo("report").expect(0)


@pytest.mark.parametrize("words", [[], [RUN]], ids=["last", "by name"])
def test_file_that_is_no_report_is_named(machine: LocalMachine, words: list[str]) -> None:
    for name in ("last-run.json", f"reports/{RUN}.json"):
        (machine.state / name).write_text('{"run": 3}')

    refused(machine.solo("report", *words), 1, ".json is not a report that this engine can read")


def test_report_without_root_says_to_run_it_as_root(machine: LocalMachine) -> None:
    with open_to_all(machine) as root:
        (root.state / "reports").mkdir(mode=0o700, parents=True)
        keep(root, "last-run.json", whole())
        for words in (["report"], ["report", RUN], ["report", "--timeline"]):
            refused(as_nobody(root, *words), 64, "Run it as root.")


@pytest.mark.parametrize("folder", ["disk", "tmpfs"])
def test_status_without_root_says_what_it_may_not_read(machine: LocalMachine, folder: str) -> None:
    """It said `last run  none` and `role not known` on a machine that had run."""
    with open_to_all(machine) as root:
        root.state.mkdir(parents=True)
        root.run_folder.mkdir(parents=True)
        assert "last run  none" in as_nobody(root, "status").expect(1).stdout
        keep(root, "last-run.json", whole())
        if folder == "tmpfs":
            (root.state / "last-run.json").rename(root.run_folder / "last-run.json")
        done = as_nobody(root, "status").expect(1)
        assert done.stdout.splitlines() == [
            "machine   only root may read its role",
            "gate      closed: never opened",
            "last run  only root may read it, and whether a run is at work. Run it as root.",
        ]
        found = json.loads(as_nobody(root, "status", "--json").expect(1).stdout)
        assert (found["hidden"], found["last_run"]) == (True, None)
        assert json.loads(root.solo("status", "--json").expect(1).stdout)["hidden"] is False


def test_report_without_measurements_is_read(machine: LocalMachine) -> None:
    """An older engine wrote such ones."""
    older = json.loads(encode(whole()))
    for values in (older, *older["operations"]):
        values.pop("began")
    del older["not_idempotent"], older["operations"][0]["cpu"], older["operations"][0]["waits"]
    (machine.state / "last-run.json").write_text(json.dumps(older))

    for flag in ("--slow", "--timeline", "--json"):
        machine.solo("report", flag).expect(0)
    assert "nginx runs" in machine.solo("report").expect(0).stdout


@pytest.mark.parametrize(
    ("flag", "loaded"), [("--slow", []), ("--timeline", []), ("--json", []), ("--html=/dev/null", ["jinja2"])]
)
def test_report_loads_no_library_that_only_a_run_needs(
    machine: LocalMachine, flag: str, loaded: list[str]
) -> None:
    script = (
        "import sys\nfrom pyinfra_solo.cli import main as cli\n"
        f"sys.argv[1:] = ['report', {flag!r}]\n"
        "try: cli.main()\nexcept SystemExit as end: assert not end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=machine.variables(), capture_output=True, text=True, check=True
    )

    assert done.stderr == f"{loaded}\n"
