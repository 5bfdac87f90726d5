"""A service runs with what is on disk: also when the run that changed it was killed before the restart.

The init here is the LSB kind: `service NAME VERB`, a program of the test that notes its verbs.
"""

import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyinfra.operations import files, server

from pyinfra_solo.errors import DataError
from pyinfra_solo.operations import service
from tests.support.pyinfra_api import Played, play

pytestmark = pytest.mark.skipif(
    Path("/run/systemd/system").is_dir(), reason="systemd runs here, and would be asked"
)


OPERATION = "the operation that `declare` returns"


class Init:
    """An init system with one service, `demo`; `verbs` are what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up = folder / "up"
        self.log = folder / "verbs"
        self.config = folder / "demo.conf"
        self.config.write_text("one\n")
        (folder / "bin").mkdir()
        program = folder / "bin/service"
        program.write_text(
            f'#!/bin/sh\n[ "$2" != status ] || {{ [ -e {self.up} ]; exit; }}\necho $2 >>{self.log}\n: >{self.up}\n'
        )
        program.chmod(0o755)

    def verbs(self) -> list[str]:
        """The verbs since the last call."""
        verbs = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return verbs

    def converge(self, declare: Callable[[], Any] = lambda: None, **options: Any) -> Played:
        """`declare` first, then the service."""

        def both() -> None:
            op = declare()
            causes: dict[str, Any] = {
                key: [op if one is OPERATION else one for one in options[key]] for key in options
            }
            service.running("demo", name="demo runs", enabled=False, **causes)

        played = play(both, self.folder)
        assert not played.failed, played.text
        return played


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Init:
    made = Init(tmp_path)
    monkeypatch.setattr(service, "RECORDS", str(tmp_path / "run/loaded"))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return made


@pytest.fixture
def running(init: Init) -> Init:
    """It was down, and is started."""
    assert init.converge(reload_on=[str(init.config)]).made == ("demo runs",)
    assert init.verbs() == ["start"]
    return init


def change(init: Init) -> Any:
    return files.put(name="demo is configured", src=StringIO("two\n"), dest=str(init.config))


def test_a_second_time_changes_nothing(running: Init) -> None:
    assert running.converge(reload_on=[str(running.config)]).made == ()
    assert running.verbs() == []


@pytest.mark.parametrize(("paths", "verb"), [("reload_on", "reload"), ("restart_on", "restart")])
def test_a_changed_file_is_loaded(init: Init, paths: str, verb: str) -> None:
    options: dict[str, Any] = {paths: [str(init.config)]}
    init.converge(**options)
    init.verbs()
    assert init.converge(lambda: change(init), **options).made == ("demo is configured", "demo runs")
    assert init.verbs() == [verb]
    assert init.converge(lambda: change(init), **options).made == ()


def test_a_run_that_was_killed_before_the_reload_leaves_it_to_the_next(running: Init) -> None:
    running.config.write_text("two\n")  # what the killed run had written
    assert running.converge(reload_on=[str(running.config)]).made == ("demo runs",)
    assert running.verbs() == ["reload"]


def test_the_very_first_run_after_a_boot_may_be_the_killed_one(init: Init) -> None:
    """Nothing is noted yet, the service came up by itself, and the run dies after its change."""
    init.up.touch()

    def dies() -> None:
        change(init)
        server.shell(name="the run dies", commands="false")
        service.running("demo", name="demo runs", enabled=False, reload_on=[str(init.config)])

    assert play(dies, init.folder).failed == "the run dies"
    assert init.verbs() == []
    assert init.converge(reload_on=[str(init.config)]).made == ("demo runs",)
    assert init.verbs() == ["reload"]


def test_after_a_boot_that_changed_nothing_nothing_is_reloaded(init: Init) -> None:
    init.up.touch()
    assert init.converge(reload_on=[str(init.config)]).made == ()
    assert init.verbs() == []


@pytest.mark.parametrize(("key", "verb"), [("restart_on", "restart"), ("reload_on", "reload")])
def test_a_list_of_causes_takes_paths_and_operations(running: Init, key: str, verb: str) -> None:
    causes = {"reload_on": [str(running.config)]}
    causes[key] = [*causes.get(key, []), OPERATION]

    def other() -> Any:
        return files.put(name="other", src=StringIO("x"), dest=str(running.folder / "other"))

    running.converge(other, **causes)
    assert running.verbs() == [verb]
    running.converge(other, **causes)
    assert running.verbs() == []


def test_a_path_without_a_list_is_refused() -> None:
    with pytest.raises(DataError, match="take a list"):
        service.running("demo", name="demo runs", restart_on="/etc/demo")
