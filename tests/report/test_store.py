"""Reports on disk: valid at every moment, the newest ones kept, and on tmpfs when the disk takes none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyinfra_solo import paths
from pyinfra_solo.report.records import Station, encode
from pyinfra_solo.report.store import ReportFile, last
from tests.report.test_records import some, validated, whole


@pytest.fixture
def state(machine_root: Path) -> Path:
    """The machine's folder for what boots leave for each other."""
    return machine_root / "var/lib/pyinfra-solo"


@pytest.fixture
def tmpfs(machine_root: Path) -> Path:
    return machine_root / "run/pyinfra-solo"


def test_report_is_kept_by_its_run_and_as_the_last_one(state: Path) -> None:
    file = ReportFile(whole())
    file.write()

    assert file.problem is None
    assert validated((state / "reports/20261121T000000Z-abcdef.json").read_bytes())["role"] == "web"
    assert (state / "last-run.json").read_bytes() == encode(whole())
    assert last() == whole()


def test_run_that_is_not_the_last_one_leaves_last_run_json_alone(state: Path) -> None:
    ReportFile(whole()).write()
    other = ReportFile(some("20261121T000001Z-abcdef"))
    other.is_last = False
    other.write()

    assert last() == whole()
    assert (state / "reports/20261121T000001Z-abcdef.json").exists()


def test_report_goes_to_tmpfs_when_the_disk_takes_none(state: Path, tmpfs: Path) -> None:
    (state / "reports").rmdir()
    state.rmdir()
    state.write_text("not a folder")
    file = ReportFile(whole())
    file.write()

    assert file.problem is not None
    assert str(state) in file.problem
    assert validated((tmpfs / "last-run.json").read_bytes())["role"] == "web"
    assert last() == whole()


def test_report_on_tmpfs_goes_when_the_disk_takes_it_later(tmpfs: Path) -> None:
    tmpfs.mkdir(parents=True)
    (tmpfs / "last-run.json").write_bytes(encode(some()))
    ReportFile(whole()).write()

    assert not (tmpfs / "last-run.json").exists()
    assert last() == whole()


def test_report_without_any_place_is_a_problem_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "a file"
    nowhere.touch()
    monkeypatch.setattr(paths, "STATE", nowhere)
    monkeypatch.setattr(paths, "RUN", nowhere)
    file = ReportFile(whole())
    file.write()

    assert file.problem is not None
    assert file.problem.count(str(nowhere)) == 2


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"{}", b'{"schema": 99}', b"null"])
def test_last_report_that_cannot_be_read_is_none(state: Path, text: bytes) -> None:
    (state / "last-run.json").write_bytes(text)

    assert last() is None


@pytest.mark.usefixtures("machine_root")
def test_last_report_of_a_machine_that_never_ran_is_none() -> None:
    assert last() is None


def names(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "reports").iterdir())


def leave(state: Path, count: int) -> None:
    """Leave reports of `count` earlier runs, each with its events."""
    for number in range(count):
        path = state / f"reports/20261121T0000{number:02}Z-abcdef.json"
        path.touch()
        path.with_suffix(".events").touch()


def test_prune_keeps_the_newest_reports_with_their_events(state: Path) -> None:
    leave(state, 10)
    file = ReportFile(some("20261121T000100Z-abcdef"))
    file.write()
    file.prune(keep=3)

    assert names(state) == [
        "20261121T000008Z-abcdef.events", "20261121T000008Z-abcdef.json",
        "20261121T000009Z-abcdef.events", "20261121T000009Z-abcdef.json",
        "20261121T000100Z-abcdef.json",
    ]  # fmt: skip


@pytest.mark.parametrize("keep", [1, 3])
def test_prune_keeps_the_run_s_own_report_after_a_clock_step(state: Path, keep: int) -> None:
    """A clock that stepped back names it as the oldest."""
    leave(state, 10)
    file = ReportFile(some("20261120T230000Z-abcdef"))
    file.write()
    file.prune(keep)

    assert "20261120T230000Z-abcdef.json" in names(state)
    assert len([name for name in names(state) if name.endswith(".json")]) == keep


def test_prune_leaves_a_report_that_cannot_be_removed(state: Path) -> None:
    """On a disk that has gone read-only; here it is a folder in a report's place."""
    (state / "reports/20261121T000000Z-abcdef.json").mkdir()

    ReportFile(some("20261121T000100Z-abcdef")).prune(keep=1)


def test_reader_gets_the_old_report_or_the_new_one(state: Path) -> None:
    path = state / "last-run.json"
    report = some()
    file = ReportFile(report)
    file.write()
    with path.open("rb") as reader:
        report.stations = [Station(name="x" * (number % 9), started=0.0) for number in range(50)]
        file.write()
        assert validated(reader.read())["stations"] == []
    assert len(validated(path.read_bytes())["stations"]) == 50
