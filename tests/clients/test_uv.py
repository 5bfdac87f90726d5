"""uv gets what it is given and nothing else, in its time; what it says is wrong becomes our errors."""

import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pyinfra_solo.errors import DeadlineError, SourceError, TrustError
from tests.support.programs import is_alive
from tests.support.wheels import ZERO, House, prints, slow_uv, wheel


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_wheel_that_is_not_the_locked_one_is_refused_by_name(house: House) -> None:
    house.ask(("alpha", "1.0", ZERO))
    with pytest.raises(TrustError, match=r"^alpha==1\.0 is not what requirements\.lock was locked to"):
        house.prepare()
    assert house.names() == set()


def test_a_changed_wheel_is_refused_even_if_an_earlier_one_was_good(house: House) -> None:
    house.prepare()
    shutil.rmtree(house.into.parent)
    wheel(house.wheels, "alpha", body="import os\n")
    with pytest.raises(TrustError, match="alpha"):
        house.prepare()


def test_a_wheel_that_nobody_has_is_named(house: House) -> None:
    house.ask(("gamma", "3.0", ZERO))
    empty = house.into.parent.parent / "index"
    (empty / "gamma").mkdir(parents=True)
    (empty / "gamma/index.html").write_text("<!DOCTYPE html>")
    with pytest.raises(SourceError, match="gamma"):
        house.prepare(index=empty.as_uri())
    assert house.names() == set()


def test_an_index_that_does_not_answer_is_a_source_that_may_come_back(house: House) -> None:
    house.ask(("gamma", "3.0", ZERO))
    with pytest.raises(SourceError, match=r"^No wheel for ") as raised:
        house.prepare()
    assert raised.value.retry
    assert "trying the index" in house.said[-1]


def test_a_wheel_that_is_not_at_hand_comes_from_the_index(house: House) -> None:
    index = house.into.parent.parent / "index"
    (index / "alpha").mkdir(parents=True)
    name = "alpha-1.0-py3-none-any.whl"
    (house.wheels / name).rename(index / "alpha" / name)
    (index / "alpha/index.html").write_text(f'<!DOCTYPE html><a href="{name}">{name}</a>')
    runtime = house.prepare(index=index.as_uri())
    assert prints(runtime, "import alpha; alpha.main()") == "1.0"


def gone(pid: int) -> bool:
    """Whether a process ends within a second."""
    until = time.monotonic() + 1
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_alive(pid)


def test_what_takes_too_long_is_ended_with_all_that_it_started(house: House, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"`uv pip sync` was ended after [12] s"):
        house.prepare(tool=slow_uv(tmp_path), timeout=1.5)
    assert time.monotonic() - started < 10
    assert gone(int((tmp_path / "child").read_text()))
    assert house.names() == set()


def test_the_callers_environment_does_not_reach_uv(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/nonexistent")
    monkeypatch.setenv("UV_CACHE_DIR", "/nonexistent")
    monkeypatch.setenv("UV_NO_BINARY", "1")
    monkeypatch.setenv("UV_PYTHON", "3.2")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    runtime = house.prepare()
    assert list((house.into / runtime.key).glob("lib/python3*/site-packages/alpha/__pycache__/*.pyc"))


@pytest.fixture
def empty_index(tmp_path: Path) -> Iterator[str]:
    """An index on the loopback that knows no package, and says so with 404."""
    (tmp_path / "empty").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "empty"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def test_uv_writes_nothing_into_the_home_of_who_runs_it(
    house: House, empty_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv 0.13.8 makes a credentials store there when an index answers 401 or 404."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    house.ask(("gamma", "3.0", ZERO))
    with pytest.raises(SourceError, match="gamma was not found in the package registry"):
        house.prepare(index=empty_index)
    assert not (tmp_path / "home").exists()


def test_a_machine_without_uv_gets_a_message_with_what_to_run(house: House) -> None:
    with pytest.raises(SourceError, match=r"/nonexistent/uv cannot be run: .* Run bootstrap/install\.sh\."):
        house.prepare(tool=Path("/nonexistent/uv"))
