"""A job's state as initctl(8) prints it. Debian has no Upstart: a program stands in for initctl."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo.clients import upstart


@pytest.fixture
def initctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that stands in for initctl, and the job `demo`."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/demo.conf").touch()
    monkeypatch.setattr(upstart, "JOBS", tmp_path / "jobs")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "initctl"
    program.touch(0o755)
    return program


@pytest.fixture
def child() -> Iterator[int]:
    """A process that has just begun."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo demo start/running", None),
        ("echo demo start/running, process 1", None),
        ("printf 'demo start/running, process 1\\n\\tpost-start process 2\\n'", None),
        ("echo demo stop/waiting", "demo stop/waiting"),
        ("echo demo start/post-stop, process 1", "demo start/post-stop, process 1"),
        ("echo initctl: Unknown job: demo >&2; exit 1", "initctl: Unknown job: demo"),
        ("exit 1", "initctl gave no answer"),
        ("exec sleep 60", "initctl did not answer in 0.5 s"),
    ],
)
def test_a_job_is_well_when_initctl_shows_it_running(initctl: Path, script: str, problem: str | None) -> None:
    initctl.write_text(f"#!/bin/sh\n{script}\n")
    assert upstart.problem("demo", 1, 0.5 if "sleep" in script else 30) == problem


def test_a_job_that_has_just_been_restarted_is_not_well(initctl: Path, child: int) -> None:
    """A job that crashes and respawns all the time is `start/running`, too."""
    initctl.write_text(f"#!/bin/sh\necho demo start/running, process {child}\n")
    assert str(upstart.problem("demo", 3600, 30)).startswith("active for ")
    assert upstart.problem("demo", 0, 30) is None
    initctl.write_text("#!/bin/sh\necho demo start/running, process 4194305\n")
    assert upstart.problem("demo", 1, 30) == "active for 0.0 s of 1 s"


def test_only_a_service_with_a_job_is_upstart_s(initctl: Path) -> None:
    assert upstart.has_job("demo")
    assert not upstart.has_job("nginx")
    assert not upstart.has_job("../jobs/demo")
    initctl.unlink()
    assert not upstart.has_job("demo")
