"""Fixtures of all tests."""

import io
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo.run.run import Run
from tests.support.imds import Metadata, metadata_service
from tests.support.instance import Instance
from tests.support.line import Line, new_run
from tests.support.machine import use_root

# nohup(1) ignores the one, a shell's `&` the other, and all that tests start would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


HOSTS_OWN = ("/etc/pyinfra-solo", "/opt/pyinfra-solo", "/run/pyinfra-solo", "/var/lib/pyinfra-solo")


@pytest.fixture(autouse=True)
def _not_the_hosts_own_paths(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Put the paths of this process and of its children below a folder of each test's own.

    Fails a test that wrote into the host's own paths nevertheless.
    """
    use_root(tmp_path_factory.mktemp("machine"), monkeypatch)
    before = _changed_at()
    yield
    assert _changed_at() == before, "the test wrote into the folders of a real machine"


def _changed_at() -> dict[str, int]:
    """Map each folder of the host's own paths to the time at which a name in it changed, in ns."""
    found = [folder for path in HOSTS_OWN for folder, _, _ in os.walk(path)]
    return {folder: Path(folder).stat().st_mtime_ns for folder in found}


@pytest.fixture
def machine_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the paths of this process and of its children below tmp_path."""
    use_root(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that other accounts can reach, as they can /srv; pytest's own is for root alone."""
    with tempfile.TemporaryDirectory(prefix="pyinfra-solo-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def output() -> io.StringIO:
    """Make the log of the fixture `run`."""
    return io.StringIO()


@pytest.fixture
def run(output: io.StringIO) -> Run:
    """Start a run that logs to `output`."""
    return new_run(output=output)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Make the folder in which a role of `tests.support.ops_repo` works."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """Serve metadata on the loopback to this process and its children."""
    with metadata_service(Instance()) as served:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", served.url)
        yield served


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Make a machine below a folder, with an ops repo."""
    return Line(tmp_path)
