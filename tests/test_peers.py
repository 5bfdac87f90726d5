"""The benchmark beside its peers: its checker, by the two programs that need nothing installed."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import contestants, tables
from benchmarks.peers.__main__ import sizes
from benchmarks.peers.race import EMPTY, Race, Turn
from benchmarks.peers.workload import COLD, DRIFT, NO_OP, STATES, Workload, rendered, translate
from tests.support import programs

POLICIES = Path(__file__).parents[1] / "benchmarks/peers/policies"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    copied = shutil.copytree(POLICIES, tmp_path / "policies", ignore=shutil.ignore_patterns("__pycache__"))
    translate(copied)
    return copied


@pytest.fixture
def work(tmp_path: Path) -> Workload:
    laid = Workload(20, tmp_path / "tree")
    laid.lay_out()
    return laid


def run(work: Workload, *command: str | Path) -> str:
    environment = {**os.environ, **work.environment()}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def floor(work: Workload) -> str:
    return run(work, sys.executable, POLICIES / "floor.py", POLICIES / "ops/templates/file.j2")


@pytest.mark.parametrize("tool", ["floor", "shell"])
def test_a_tool_does_the_work_and_only_the_work(tool: str, work: Workload, policies: Path) -> None:
    for state in STATES:
        drifted = work.drift() if state == DRIFT else ""
        before = work.seen() if state != COLD else {}

        output = floor(work) if tool == "floor" else run(work, "sh", policies / "shell.sh")

        assert work.wrong() == []
        assert work.rewritten(before, drifted) == []
        assert contestants.number_printed(output) == work.changes[state]


def test_a_file_is_about_a_kilobyte_and_has_its_three_variables() -> None:
    assert b"d7-f3" in rendered(7, 3)
    assert b"shard = 7\n" in rendered(7, 3)
    assert b":903\n" in rendered(7, 3)
    assert b"{" not in rendered(7, 3)
    assert 950 <= len(rendered(7, 3)) <= 1100


def other_bytes(tree: Path) -> None:
    (tree / "d1/f5").write_bytes(rendered(1, 5).upper())


def without_its_line(tree: Path) -> None:
    text = (tree / "lines.conf").read_text()
    (tree / "lines.conf").write_text(text.replace("limit = 4096\n", ""))


def its_line_twice(tree: Path) -> None:
    with (tree / "lines.conf").open("a") as opened:
        opened.write("limit = 4096\n")


def elsewhere(tree: Path) -> None:
    (tree / "d0/link").unlink()
    (tree / "d0/link").symlink_to(tree / "d1/f0")


def a_copy_for_a_link(tree: Path) -> None:
    (tree / "d0/link").unlink()
    shutil.copy(tree / "d0/f0", tree / "d0/link")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (other_bytes, "d1/f5 has other bytes"),
        (without_its_line, "lines.conf has other bytes"),
        (its_line_twice, "lines.conf has other bytes"),
        (elsewhere, "d0/link leads elsewhere"),
        (a_copy_for_a_link, "d0/link is of another kind"),
        (lambda tree: (tree / "d1/f2").chmod(0o600), "d1/f2 has the mode 600"),
        (lambda tree: (tree / "d1").chmod(0o755), "d1 has the mode 755"),
        (lambda tree: (tree / "d0/f9").unlink(), "d0/f9 is missing"),
        (lambda tree: (tree / "d0/f9.bak").touch(), "d0/f9.bak should not be there"),
    ],
)
def test_a_tree_that_is_not_right_is_told(spoil: Callable[[Path], None], says: str, work: Workload) -> None:
    floor(work)

    spoil(work.root)

    assert work.wrong() == [says]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_told(work: Workload) -> None:
    floor(work)

    os.chown(work.root / "d0/f1", 1, 2)

    assert work.wrong() == ["d0/f1 is owned by 1:2"]


def test_a_file_that_was_written_anew_with_the_same_bytes_is_told(work: Workload) -> None:
    floor(work)
    before = work.seen()

    (work.root / "d0/f3").write_bytes(rendered(0, 3))
    (work.root / "new").write_bytes(rendered(0, 4))
    (work.root / "new").rename(work.root / "d0/f4")

    assert work.wrong() == []
    assert sorted(work.rewritten(before)) == ["d0/f3 was touched", "d0/f4 was touched"]
    assert work.rewritten(before, but="d0/f3") == ["d0/f4 was touched"]


def test_a_ratio_is_of_runs_of_the_same_round() -> None:
    turns = [
        Turn("ours", 1000, NO_OP, 0, wall=0.1, cpu=0.1, peak=35),
        Turn("ours", 1000, NO_OP, 1, wall=0.4, cpu=0.4, peak=36),
        Turn("cfengine", 1000, NO_OP, 1, wall=0.8, cpu=0.8, peak=25),
        Turn("ours", 0, EMPTY, 0, wall=0.2, cpu=0.14, peak=30),
    ]

    found = {goal.aim: goal for goal in tables.goals(turns)}

    assert found["no-op, 1000 files, wall, beside cf-agent"].values == [0.5]
    assert found["no-op, 1000 files, wall, beside cf-agent"].met is False
    assert found["start-up, nothing to do, CPU"].met is True
    assert found["no-op, 100 files, wall, beside cf-agent"].met is None


def test_a_tool_that_did_not_do_its_work_has_a_reason_and_no_figure(tmp_path: Path) -> None:
    tools = [tool for tool in contestants.ALL if tool.name in ("ours", "ansible")]
    race = Race(tmp_path, tools, limit=120)
    race.turns = [Turn("ours", 1000, state, 0, wall=0.25, cpu=0.2, peak=35) for state in STATES]
    race.failures["ours", 0] = "cold: exit status 1\nTraceback"
    race.skipped["ansible", 1000] = "it would take 400 s, by 100 files"

    lines = tables.page(race).splitlines()

    assert "| ours | - | failed: cold: exit status 1 | | |" in lines
    assert any(line.startswith("| ours | 1 | 0.250 (0.250-0.250) | 0.20 |") for line in lines)
    assert any(
        line.startswith("| ansible | - | not run: it would take 400 s, by 100 files |") for line in lines
    )


def measured(tmp_path: Path, seconds: int, command: str) -> dict[str, Any]:
    (tmp_path / "given").write_text("given\n")
    program = [sys.executable, "-I", "-S", str(POLICIES.parent / "measure.py"), str(seconds)]
    argv = [*program, str(tmp_path / "output"), str(tmp_path / "given"), "sh", "-c", command]
    figures: dict[str, Any] = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def test_a_measured_command_has_its_input_its_output_and_its_exit_status(tmp_path: Path) -> None:
    found = measured(tmp_path, 60, "cat; echo wrong >&2; exit 3")

    assert found["code"] == 3
    assert found.keys() == {"wall", "cpu", "peak", "code"}
    assert (tmp_path / "output").read_text() == "given\nwrong\n"


def test_a_command_that_is_at_work_at_the_limit_is_ended_with_its_children(tmp_path: Path) -> None:
    found = measured(tmp_path, 1, "sleep 600 & echo $!; sleep 600")

    assert found["code"] is None
    child = Path("/proc", (tmp_path / "output").read_text().strip(), "cmdline")
    programs.wait_for("the child to end", lambda: not child.exists() or not child.read_bytes(), 30)


def test_our_events_tell_how_much_changed() -> None:
    output = (
        '{"event": "OperationEnded", "name": "a", "changed": true}\nnoise\n'
        '{"event": "OperationEnded", "name": "b", "changed": false}\n{"event": "Done"}\n'
    )

    assert contestants.ours_changed(output) == 1


@pytest.mark.parametrize("asked", ["abc", "100,15", "0", "20000", ""])
def test_a_size_that_is_not_one_is_refused_with_what_to_write(asked: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="multiples of ten, 10000 at most: 100,1000"):
        sizes(asked)


def test_sizes_are_raced_the_smallest_first_and_once() -> None:
    assert sizes("1000,10,1000") == [10, 1000]
