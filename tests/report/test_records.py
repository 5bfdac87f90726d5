"""A report is valid at every moment: complete after a run, and after a kill true up to where it was."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from pyinfra_solo.checks import Finding
from pyinfra_solo.report import records as report
from pyinfra_solo.report.records import (
    NotIdempotent,
    Operation,
    Report,
    ReportFile,
    Station,
    Waited,
    encode,
    last,
    new_run_id,
    schema,
)
from pyinfra_solo.system.deadline import Wait
from tests.support.machine import REPOSITORY

PUBLISHED = REPOSITORY / "docs/report.schema.json"


def some(run: str = "20261121T000000Z-abcdef", **said: Any) -> Report:
    return Report(
        run=run, command="boot", started="2026-11-21T00:00:00+00:00", boot_id="x", engine="0.1.0", **said
    )


def whole() -> Report:
    """With something at every place."""
    return some(
        seconds=12.5, outcome="failed", exit_code=30, error="no", station="judge", instance_id="i-0a1", role="web",
        stage="production", sha="a" * 40, source="https://git.example.com/ops.git", gate="closed",
        stations=[Station(name="fetch", started=0.0, seconds=1.0, outcome="ok", detail=["x"], waits=[Wait(what="a", why="b", seconds=0.2)])],
        operations=[Operation(name="nginx runs", changed=True, failed=True, seconds=1.5, output=["x"], diff=["+ x"], began=101.5, cpu=0.5, waits=[Waited(what="sh packages", seconds=1.0)])],
        again=[NotIdempotent(name="nginx runs", would=["systemctl start nginx"])], began=100.0,
        findings=[Finding(check="unit nginx", passed=False, detail="failed", tries=3, seconds=60.0)],
    )  # fmt: skip


def validated(text: bytes | str) -> dict[str, Any]:
    """The report, when it is one by the schema that is published."""
    said = json.loads(text)
    jsonschema.validate(said, json.loads(PUBLISHED.read_text()), cls=jsonschema.Draft202012Validator)
    assert isinstance(said, dict)
    return said


def test_the_published_schema_is_made_from_the_classes() -> None:
    """`make schema` writes it anew."""
    assert json.loads(PUBLISHED.read_text()) == schema()


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("told", [some(), whole()], ids=["begun", "whole"])
def test_a_report_is_of_the_schema_and_comes_back_as_it_was(told: Report) -> None:
    validated(encode(told))

    assert msgspec.json.decode(encode(told), type=Report) == told


@pytest.mark.parametrize(
    "wrong",
    [{"outcome": "perhaps"}, {"run": None}, {"stations": [{"name": "fetch"}]}, {"exit_code": "0"}],
    ids=str,
)
def test_the_schema_refuses_what_is_no_report(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validated(json.dumps({**json.loads(encode(whole())), **wrong}))


def test_a_report_takes_text_that_is_no_utf_8() -> None:
    """What an operator typed, and what git said, come as bytes of any kind (PEP 383)."""
    told = whole()
    told.command, told.stations[0].detail = "gate open: \udcff\udcfe", ["caf\udce9"]
    said = validated(encode(told))

    assert said["command"] == "gate open: \\udcff\\udcfe"
    assert said["stations"][0]["detail"] == ["caf\\udce9"]
    assert msgspec.json.decode(encode(told), type=Report).role == "web"


def test_a_run_s_name_is_a_time_and_something_of_its_own() -> None:
    names = {new_run_id() for _ in range(100)}

    assert len(names) == 100
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", name) for name in names)


def test_a_report_is_written_under_the_run_s_name_and_as_the_last_one(machine_root: Path) -> None:
    file = ReportFile(whole())
    file.write()
    state = machine_root / "var/lib/pyinfra-solo"

    assert file.problem is None
    assert validated((state / "reports/20261121T000000Z-abcdef.json").read_bytes())["role"] == "web"
    assert (state / "last-run.json").read_bytes() == encode(whole())
    assert last() == whole()


def test_a_run_that_is_not_the_machine_s_last_leaves_the_last_one_alone(machine_root: Path) -> None:
    ReportFile(whole()).write()
    other = ReportFile(some("20261121T000001Z-abcdef"))
    other.is_last = False
    other.write()

    assert last() == whole()
    assert (machine_root / "var/lib/pyinfra-solo/reports/20261121T000001Z-abcdef.json").exists()


def test_where_the_disk_takes_nothing_the_report_is_beside_the_gate(machine_root: Path) -> None:
    state = machine_root / "var/lib/pyinfra-solo"
    (state / "reports").rmdir()
    state.rmdir()
    state.write_text("not a folder")
    file = ReportFile(whole())
    file.write()

    assert file.problem is not None
    assert str(state) in file.problem
    assert validated((machine_root / "run/pyinfra-solo/last-run.json").read_bytes())["role"] == "web"
    assert last() == whole()


def test_once_the_disk_takes_it_again_nothing_old_stays_beside_the_gate(machine_root: Path) -> None:
    (machine_root / "run/pyinfra-solo").mkdir(parents=True)
    (machine_root / "run/pyinfra-solo/last-run.json").write_bytes(encode(some()))
    ReportFile(whole()).write()

    assert not (machine_root / "run/pyinfra-solo/last-run.json").exists()
    assert last() == whole()


def test_without_any_place_for_it_a_report_is_a_problem_and_no_crash(machine_root: Path) -> None:
    nowhere = machine_root / "a file"
    nowhere.touch()
    file = ReportFile(whole(), nowhere, nowhere)
    file.write()

    assert file.problem is not None
    assert file.problem.count(str(nowhere)) == 2


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"{}", b'{"schema": 99}', b"null"])
def test_a_last_report_that_cannot_be_read_is_none(machine_root: Path, text: bytes) -> None:
    (machine_root / "var/lib/pyinfra-solo/last-run.json").write_bytes(text)

    assert last() is None


def test_a_machine_that_never_ran_has_no_last_report(machine_root: Path) -> None:
    assert not (machine_root / "var/lib/pyinfra-solo/last-run.json").exists()
    assert last() is None


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "var/lib/pyinfra-solo/reports").iterdir())


def leave(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"var/lib/pyinfra-solo/reports/20261121T0000{number:02}Z-abcdef.json"
        path.touch()
        path.with_suffix(".events").touch()


def test_the_newest_reports_are_kept_and_what_goes_takes_its_events_along(machine_root: Path) -> None:
    leave(machine_root, 10)
    file = ReportFile(some("20261121T000100Z-abcdef"))
    file.write()
    file.prune(keep=3)

    assert names(machine_root) == [
        "20261121T000008Z-abcdef.events", "20261121T000008Z-abcdef.json",
        "20261121T000009Z-abcdef.events", "20261121T000009Z-abcdef.json",
        "20261121T000100Z-abcdef.json",
    ]  # fmt: skip


@pytest.mark.parametrize("keep", [1, 3])
def test_a_clock_that_stepped_back_does_not_cost_a_run_its_own_report(machine_root: Path, keep: int) -> None:
    leave(machine_root, 10)
    file = ReportFile(some("20261120T230000Z-abcdef"))
    file.write()
    file.prune(keep)

    assert "20261120T230000Z-abcdef.json" in names(machine_root)
    assert len([name for name in names(machine_root) if name.endswith(".json")]) == keep


def test_reports_that_cannot_be_removed_are_no_failure(machine_root: Path) -> None:
    """On a disk that has gone read-only; here it is a folder in a report's place."""
    (machine_root / "var/lib/pyinfra-solo/reports/20261121T000000Z-abcdef.json").mkdir()

    ReportFile(some("20261121T000100Z-abcdef")).prune(keep=1)


def test_a_report_is_replaced_whole(machine_root: Path) -> None:
    """Who reads while it is written reads the old one or the new one."""
    path = machine_root / "var/lib/pyinfra-solo/last-run.json"
    told = some()
    file = ReportFile(told)
    file.write()
    with path.open("rb") as reader:
        told.stations = [Station(name="x" * (number % 9), started=0.0) for number in range(50)]
        file.write()
        assert validated(reader.read())["stations"] == []
    assert len(validated(path.read_bytes())["stations"]) == 50


def test_the_schema_version_is_part_of_every_report() -> None:
    assert json.loads(encode(some()))["schema"] == report.SCHEMA_VERSION
