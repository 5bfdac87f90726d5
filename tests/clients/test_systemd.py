"""The client of systemctl(1): a program of that name on PATH answers for systemd."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyinfra_solo.clients import systemd

Answer = Callable[[str], None]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Put a shell script in systemctl's place; `words` holds the words that it was called with."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def answer(script: str) -> None:
        program = tmp_path / "systemctl"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\n{script}\n')
        program.chmod(0o755)

    return answer


def test_systemd_runs_where_its_runtime_folder_is(tmp_path: Path) -> None:
    assert not systemd.is_running(tmp_path)

    (tmp_path / "run/systemd/system").mkdir(parents=True)

    assert systemd.is_running(tmp_path)


def test_show_returns_the_properties_of_each_unit(systemctl: Answer, tmp_path: Path) -> None:
    systemctl(r"printf 'Id=a.service\nAfter=x=y z\n\nId=b.service\nAfter=\n'")

    found = systemd.show(["a.service", "-b.service"], ["Id", "After"], timeout=10)

    assert found == [{"Id": "a.service", "After": "x=y z"}, {"Id": "b.service", "After": ""}]
    words = (tmp_path / "words").read_text().split()
    assert words[-4:] == ["--property=Id,After", "--", "a.service", "-b.service"]


@pytest.mark.parametrize("script", ["echo Id=a; exit 1", ":"], ids=["failed", "silent"])
def test_show_without_an_answer_returns_nothing(systemctl: Answer, script: str) -> None:
    systemctl(script)

    assert systemd.show(["a.service"], ["Id"], timeout=10) == []


def test_show_raises_when_systemctl_does_not_answer_in_time(systemctl: Answer) -> None:
    systemctl("exec sleep 60")

    with pytest.raises(TimeoutError, match=r"^systemctl did not answer in 0\.1 s$"):
        systemd.show([], ["Version"], timeout=0.1)


def test_show_raises_when_there_is_no_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(FileNotFoundError):
        systemd.show([], ["Version"], timeout=10)
