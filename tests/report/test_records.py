"""The JSON of a report and its published schema."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import msgspec
import pytest

from pyinfra_solo.checks import Finding
from pyinfra_solo.protocol import NotIdempotent
from pyinfra_solo.report import records
from pyinfra_solo.report.records import Operation, Report, Station, Waited, encode, new_run_id, schema
from pyinfra_solo.system.deadline import Wait
from tests.support.machine import REPOSITORY

PUBLISHED = REPOSITORY / "docs/report.schema.json"


def some(run: str = "20261121T000000Z-abcdef", **values: Any) -> Report:
    """A report at the start of a run, with these values."""
    start = {"command": "boot", "started": "2026-11-21T00:00:00+00:00", "boot_id": "x", "engine": "0.1.0"}
    return Report(run=run, **{**start, **values})


def whole() -> Report:
    """A report with a value in every field."""
    return some(
        seconds=12.5, outcome="failed", exit_code=30, error="no", station="judge", instance_id="i-0a1", role="web",
        stage="production", sha="a" * 40, source="https://git.example.com/ops.git", gate="closed",
        stations=[Station(name="fetch", started=0.0, seconds=1.0, outcome="ok", detail=["x"], waits=[Wait(what="a", why="b", seconds=0.2)])],
        operations=[Operation(name="nginx runs", changed=True, failed=True, seconds=1.5, output=["x"], diff=["+ x"], began=101.5, cpu=0.5, waits=[Waited(what="sh packages", seconds=1.0)])],
        not_idempotent=[NotIdempotent(name="nginx runs", commands=["systemctl start nginx"])], began=100.0,
        findings=[Finding(check="unit nginx", passed=False, detail="failed", tries=3, seconds=60.0)],
    )  # fmt: skip


def validated(text: bytes | str) -> dict[str, Any]:
    """Decode a report, and hold it against the published schema."""
    values = json.loads(text)
    jsonschema.validate(values, json.loads(PUBLISHED.read_text()), cls=jsonschema.Draft202012Validator)
    assert isinstance(values, dict)
    return values


def test_published_schema_is_made_from_the_classes() -> None:
    """`make schema` writes it anew."""
    assert json.loads(PUBLISHED.read_text()) == schema()


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("report", [some(), whole()], ids=["started", "whole"])
def test_encoded_report_is_valid_and_decodes_to_itself(report: Report) -> None:
    assert validated(encode(report))["schema"] == records.SCHEMA_VERSION
    assert msgspec.json.decode(encode(report), type=Report) == report


@pytest.mark.parametrize(
    "wrong",
    [{"outcome": "perhaps"}, {"run": None}, {"stations": [{"name": "fetch"}]}, {"exit_code": "0"}],
    ids=str,
)
def test_schema_refuses_a_wrong_report(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validated(json.dumps({**json.loads(encode(whole())), **wrong}))


def test_report_holds_text_that_is_no_utf_8() -> None:
    """Command lines and git's messages come as bytes of any kind (PEP 383)."""
    report = whole()
    report.command, report.stations[0].detail = "gate open: \udcff\udcfe", ["caf\udce9"]
    found = validated(encode(report))

    assert found["command"] == "gate open: \\udcff\\udcfe"
    assert found["stations"][0]["detail"] == ["caf\\udce9"]
    assert msgspec.json.decode(encode(report), type=Report).role == "web"


def test_run_id_is_a_time_and_unique() -> None:
    names = {new_run_id() for _ in range(100)}

    assert len(names) == 100
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", name) for name in names)
