"""What the tests of single modules share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.instance import Instance
from tests.support.imds import Metadata, metadata_service
from tests.support.machine import put_below

# nohup(1) ignores the one, a shell's `&` the other, and all that tests start would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _not_the_hosts_own_paths(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put the paths of this process, and of what it starts, below a folder of each test's own."""
    put_below(tmp_path_factory.mktemp("machine"), monkeypatch)


@pytest.fixture
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The paths of this process, and of what it starts, are below this folder."""
    put_below(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """A metadata service on the loopback, which this process and what it starts will ask."""
    with metadata_service(tmp_path, Instance()) as served:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", served.url)
        yield served
