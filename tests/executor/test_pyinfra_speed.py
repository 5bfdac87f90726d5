"""With and without the caches a converge does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template
from pyinfra.api.arguments import pop_global_arguments
from pyinfra.api.host import HostData
from pyinfra.context import ctx_host, ctx_state

from pyinfra_solo.executor import pyinfra_speed
from pyinfra_solo.executor.host import local_state
from tests.support.apart import run_apart
from tests.support.files import listing
from tests.support.line import converged, new_run
from tests.support.ops_repo import ops, write
from tests.support.scripts import imported

MANY = """
for number in range(80):
    files.put(name=f"file {number}", src=StringIO(str(number)), dest=f"{data.target}/{number}", mode="640", _if=lambda: True)
server.shell(name="elsewhere", commands=["echo $A > here"], _chdir=data.target, _env={"A": "B"})
"""


def test_a_converge_without_the_caches_does_the_same(
    tmp_path: Path, machine_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More operations than it takes to cache signatures, from nothing and once more."""
    target = tmp_path / "target"
    root = write(tmp_path / "ops", ops(MANY, target))
    found: list[Any] = []
    for plain in ("0", "1"):
        monkeypatch.setenv("PYINFRA_SOLO_PLAIN", plain)
        folder = machine_root / f"as {plain}"
        target.mkdir()
        for _ in range(2):
            run = new_run()
            converged(root, run=run)
            found += [[(one.name, one.changed) for one in run.report.operations], listing(target)]
        target.rename(folder)
    assert found[:4] == found[4:]
    assert sum(changed for _, changed in found[0]) == 81
    assert sum(changed for _, changed in found[2]) == 1


@pytest.mark.parametrize("enabled", [True, False])
def test_global_arguments_come_from_a_deploys_data_and_the_hosts(
    enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that were not set when the host was made."""
    monkeypatch.setattr(pyinfra_speed, "ENABLED", enabled)
    state = local_state(tmp_path, {"_chdir": "/"})
    host = next(iter(state.inventory))
    assert isinstance(host.data, HostData) is not enabled

    def arguments() -> tuple[Any, ...]:
        found, _ = pop_global_arguments(state, host, {})
        return found["_chdir"], found["_su_user"], found["_env"]

    with ctx_state.use(state), ctx_host.use(host):
        assert arguments() == ("/", None, {})
        with host.deploy("a deploy", None, {"_su_user": "nobody"}):
            assert arguments() == ("/", "nobody", {})
        assert arguments() == ("/", None, {})
        host.data._env = {"A": "B"}
        assert arguments() == ("/", None, {"A": "B"})


@pytest.mark.parametrize("enabled", [True, False])
def test_data_that_is_not_set_is_absent(
    enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the names of global arguments, too: deploys and templates ask for them."""
    monkeypatch.setattr(pyinfra_speed, "ENABLED", enabled)
    state = local_state(tmp_path, {"_chdir": "/"})
    data = next(iter(state.inventory)).data
    template = Template("{{ data.name }}|{{ data._sudo }}|{{ data._chdir }}|{{ data.unset }}")
    with pytest.raises(AttributeError, match="_sudo"):
        data._sudo  # noqa: B018
    assert not any(hasattr(data, name) for name in ("_sudo", "name", "unset", "anything"))
    assert data.get("_sudo", False) is False
    assert data.get("name") is None
    assert template.render(data=data) == "||/|"
    data._sudo = True
    assert data._sudo is True


@pytest.mark.parametrize("enabled", [True, False])
def test_data_comes_from_the_strongest_layer_as_a_copy(
    enabled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of a deploy's data are there while the deploy is open; methods are no data."""
    monkeypatch.setattr(pyinfra_speed, "ENABLED", enabled)
    first, second = (next(iter(local_state(tmp_path, {"one": [1], "get": 2}).inventory)) for _ in range(2))
    first.data.one.append(2)
    assert first.data.one == [1]
    assert callable(first.data.get)
    with first.deploy("a deploy", None, {"one": 3, "two": 4}):
        assert (first.data.one, first.data.two, first.data.dict()["two"]) == ([1], 4, 4)
        first.data.one = 5
        assert (first.data.one, str(first.data.get("two"))) == (5, "4")
    assert (first.data.one, second.data.one) == (5, [1])
    assert not hasattr(first.data, "two")
    with pytest.raises(AttributeError, match="two"):
        first.data.two  # noqa: B018
    assert not hasattr(second.data, "two")


def test_cached_annotations_mean_the_same() -> None:
    assert run_apart(imported.cached_annotations) == [True, True, True]
