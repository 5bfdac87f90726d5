"""`pyinfra-solo report`, as its users meet it."""

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
    """It has run twice: once as in test_report, and before that without an end."""
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


def test_the_last_run_is_summed_up(machine: LocalMachine) -> None:
    said = machine.solo("report").expect(0)

    assert said.stderr == ""
    assert said.stdout.splitlines()[0] == f"run       {RUN}, `boot`: failed in 12.5 s, exit status 30"


def test_an_older_run_is_asked_for_by_its_name(machine: LocalMachine) -> None:
    assert "machine   older, " in machine.solo("report", "20261120T000000Z-abcdef").expect(0).stdout


def test_as_json_it_is_the_report(machine: LocalMachine) -> None:
    said = machine.solo("report", "--json").expect(0)

    assert msgspec.convert(validated(said.stdout), Report) == whole()


@pytest.mark.parametrize("flag", ["--slow", "--timeline"])
def test_its_costs_are_told_in_the_width_of_the_terminal(machine: LocalMachine, flag: str) -> None:
    machine.environment["COLUMNS"] = "72"
    said = machine.solo("report", flag).expect(0)

    assert said.stderr == ""
    assert "1.50" in said.stdout or flag == "--timeline"
    assert max(map(len, said.stdout.splitlines())) <= 72 or "The boot is not shown" in said.stdout


def test_a_locale_without_the_bars_gets_other_characters(machine: LocalMachine) -> None:
    machine.environment |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    assert "fetch" in machine.solo("report", "--timeline").expect(0).stdout


def test_a_page_is_written_where_it_is_wanted(machine: LocalMachine, tmp_path: Path) -> None:
    said = machine.solo("report", RUN, "--html", str(tmp_path / "page.html")).expect(0)

    assert said.stdout == said.stderr == ""
    assert "nginx runs" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["20261119T000000Z-abcdef"], "The newest there are: 20261121T000000Z-abcdef, 20261120T000000Z-abcdef."),
        (["../last-run"], "There is no report of a run '../last-run'."),
        (["--html", "/no/such/page.html"], "--html /no/such/page.html: No such file or directory. Name a file"),
        (["--slow", "--timeline"], "Ask for one."),
        (["--html"], "requires an argument"),
        (["one", "two"], "unexpected extra argument"),
    ],
    ids=["unknown", "a path", "unwritable", "two", "no file", "two runs"],
)  # fmt: skip
def test_a_wrong_question_is_told(machine: LocalMachine, words: list[str], text: str) -> None:
    refused(machine.solo("report", *words), 64, text)


def test_two_answers_with_json_among_them_are_an_error_in_json(machine: LocalMachine) -> None:
    said = machine.solo("report", "--json", "--slow").expect(64)

    assert json.loads(said.stdout)["exit_code"] == 64


@pytest.mark.parametrize("words", [[], [RUN]], ids=["last", "by name"])
def test_a_machine_that_never_ran_says_so(tmp_path: Path, words: list[str]) -> None:
    refused(LocalMachine(tmp_path / "new").solo("report", *words), 1, "There is no report yet")


def test_a_run_s_name_never_gives_another_run(machine: LocalMachine) -> None:
    """Where the disk took no reports, there is the last one alone."""
    shutil.rmtree(machine.state / "reports")

    refused(machine.solo("report", RUN), 1, "There is no report yet")
    machine.solo("report").expect(0)


@pytest.mark.parametrize("words", [[], [RUN]], ids=["last", "by name"])
def test_a_report_that_is_none_is_told_with_its_path(machine: LocalMachine, words: list[str]) -> None:
    for name in ("last-run.json", f"reports/{RUN}.json"):
        (machine.state / name).write_text('{"run": 3}')

    refused(machine.solo("report", *words), 1, ".json is not a report that this engine can read")


def test_who_is_not_root_is_told_to_be(machine: LocalMachine) -> None:
    with open_to_all(machine) as root:
        (root.state / "reports").mkdir(mode=0o700, parents=True)
        keep(root, "last-run.json", whole())
        for words in (["report"], ["report", RUN], ["report", "--timeline"]):
            refused(as_nobody(root, *words), 64, "Run it as root.")


def test_a_report_of_an_engine_that_measured_nothing_is_read(machine: LocalMachine) -> None:
    older = json.loads(encode(whole()))
    for said in (older, *older["operations"]):
        said.pop("began")
    del older["again"], older["operations"][0]["cpu"], older["operations"][0]["waits"]
    (machine.state / "last-run.json").write_text(json.dumps(older))

    for flag in ("--slow", "--timeline", "--json"):
        machine.solo("report", flag).expect(0)
    assert "nginx runs" in machine.solo("report").expect(0).stdout


@pytest.mark.parametrize("flag", ["--slow", "--timeline", "--html=/dev/null", "--json"])
def test_it_starts_without_what_a_run_needs(machine: LocalMachine, flag: str) -> None:
    script = (
        "import sys\nfrom pyinfra_solo.cli import main as cli\n"
        f"sys.argv[1:] = ['report', {flag!r}]\n"
        "try: cli.main()\nexcept SystemExit as end: assert not end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=machine.variables(), capture_output=True, text=True, check=True
    )

    assert done.stderr == "[]\n"
