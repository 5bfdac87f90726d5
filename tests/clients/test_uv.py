"""uv gets what it is given and nothing else, in its time; what it finds wrong becomes our errors."""

import shutil
import time
from pathlib import Path

import pytest

from pyinfra_solo.errors import DeadlineError, SourceError, TrustError
from tests.support.loopback import answer, canned_server
from tests.support.programs import is_alive, wait_for
from tests.support.wheels import NOBODY, ZERO, House, prints, slow_uv, wheel


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
    refused = rf"^No wheel for gamma from {NOBODY}/gamma/: Connection refused \(os error 111\)\. Put it"
    with pytest.raises(SourceError, match=refused) as raised:
        house.prepare()
    assert raised.value.retry
    assert "trying the index" in house.lines[-1]


def test_an_index_s_password_is_not_in_the_message(house: House) -> None:
    house.ask(("gamma", "3.0", ZERO))
    with pytest.raises(SourceError, match=rf"^No wheel for gamma from {NOBODY}/gamma/: ") as raised:
        house.prepare(index=NOBODY.replace("//", "//me:hunter2@"))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("503 Service Unavailable", r"{url}/gamma/: HTTP status server error \(503 Service Unavailable\)"),
        ("404 Not Found", r"{url}: gamma was not found in the package registry"),
        ("403 Forbidden", r"{url}: An index \({url}\) returned a 403 Forbidden error"),
        (
            "401 Unauthorized",
            r"{url}: An index URL \({url}\) could not be queried due to a lack of valid auth",
        ),
    ],
)
def test_an_index_that_refuses_is_named_with_the_wheel(
    house: House, monkeypatch: pytest.MonkeyPatch, status: str, reason: str
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    house.ask(("gamma", "3.0", ZERO))
    with canned_server(answer(status)) as index:
        url = f"{index.url}/simple"
        with pytest.raises(SourceError, match="^No wheel for gamma from " + reason.format(url=url)):
            house.prepare(index=url)


def test_a_wheel_that_its_index_lists_and_does_not_have_is_named(house: House) -> None:
    house.ask(("gamma", "3.0", ZERO))
    index = house.into.parent.parent / "index"
    (index / "gamma").mkdir(parents=True)
    name = "gamma-3.0-py3-none-any.whl"
    (index / "gamma/index.html").write_text(f'<!DOCTYPE html><a href="{name}#sha256={ZERO}">{name}</a>')
    with pytest.raises(SourceError, match=rf"^No wheel for gamma==3.0 from {index.as_uri()}: .*{name}"):
        house.prepare(index=index.as_uri())


def test_a_wheel_that_is_not_at_hand_comes_from_the_index(house: House) -> None:
    index = house.into.parent.parent / "index"
    (index / "alpha").mkdir(parents=True)
    name = "alpha-1.0-py3-none-any.whl"
    (house.wheels / name).rename(index / "alpha" / name)
    (index / "alpha/index.html").write_text(f'<!DOCTYPE html><a href="{name}">{name}</a>')
    runtime = house.prepare(index=index.as_uri())
    assert prints(runtime, "import alpha; alpha.main()") == "1.0"


def test_an_installation_that_takes_too_long_is_ended(house: House, tmp_path: Path) -> None:
    """With all that it started."""
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"`uv pip sync` was ended after [12] s"):
        house.prepare(tool=slow_uv(tmp_path), timeout=1.5)
    assert time.monotonic() - started < 10
    wait_for("its child to end", lambda: not is_alive(int((tmp_path / "child").read_text())), 1)
    assert house.names() == set()


def test_the_callers_environment_does_not_reach_uv(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("VIRTUAL_ENV=/nonexistent", "UV_CACHE_DIR=/nonexistent", "UV_NO_BINARY=1", "UV_PYTHON=3.2",
                 "PYTHONDONTWRITEBYTECODE=1"):  # fmt: skip
        monkeypatch.setenv(*word.split("="))
    runtime = house.prepare()
    assert list((house.into / runtime.key).glob("lib/python3*/site-packages/alpha/__pycache__/*.pyc"))


def test_uv_writes_nothing_into_home(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv 0.13.8 makes a credentials store there when an index answers 401 or 404."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    house.ask(("gamma", "3.0", ZERO))
    missing = pytest.raises(SourceError, match="gamma was not found in the package registry")
    with canned_server(answer("404 Not Found")) as index, missing:
        house.prepare(index=f"{index.url}/simple")
    assert not (tmp_path / "home").exists()


def test_a_machine_without_uv_gets_a_message_with_what_to_run(house: House) -> None:
    with pytest.raises(SourceError, match=r"/nonexistent/uv cannot be run: .* Run bootstrap/install\.sh\."):
        house.prepare(tool=Path("/nonexistent/uv"))
