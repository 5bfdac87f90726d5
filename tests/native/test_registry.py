"""Native facts and commands are used with a verified pyinfra only, and for its own facts."""

import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pyinfra
import pytest
from pyinfra.facts import files, server

from pyinfra_solo.executor.solo_connector import take_over
from pyinfra_solo.native import commands, registry
from tests.support.both_ways import connector_of, our_state
from tests.support.line import converged, new_run
from tests.support.machine import REPOSITORY
from tests.support.ops_repo import ops, write
from tests.support.pyinfra_api import pyinfra_state, within

REASON = "native facts off: this pyinfra is not 3.10.0 as verified; using shell commands"
RECORD = registry._record()


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    def forget() -> None:
        registry.answer_to.cache_clear()
        registry.off_reason.cache_clear()

    forget()
    yield
    forget()


def test_this_pyinfra_is_verified() -> None:
    """When this fails, pyinfra has changed. Compare the MODULES of both releases; correct the native answers,
    and MODULES if a fact now means something by another one; run tests/native with the entry added to
    VERIFIED (the digest is in the failure); then drop the entries of releases that pyproject.toml excludes."""
    entry = {pyinfra.__version__: registry.digest(RECORD.read_text())}
    assert entry.items() <= registry.VERIFIED.items()
    assert registry.off_reason() is None


def test_record_has_the_digests_of_the_installed_modules() -> None:
    """Else an edited module would count as verified."""
    lines = RECORD.read_text().splitlines()
    for name in registry.MODULES:
        digest = hashlib.sha256((Path(pyinfra.__path__[0]) / name).read_bytes()).digest()
        start = f"pyinfra/{name},sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')},"
        assert [line for line in lines if line.startswith(start)], name


def other_version(patch: pytest.MonkeyPatch, _record: Path) -> None:
    patch.setattr(pyinfra, "__version__", "3.10.1")


def replaced(old: str, new: str) -> Callable[[pytest.MonkeyPatch, Path], object]:
    return lambda _patch, record: record.write_text(RECORD.read_text().replace(old, new))


@pytest.mark.parametrize(
    "change",
    [other_version, replaced("pyinfra/facts/deb.py,sha256=-", "pyinfra/facts/deb.py,sha256=_"),
     replaced("pyinfra/api/facts.py", "pyinfra/api/moved.py"), lambda _patch, record: record.unlink()],
    ids=["other version", "other module", "no module", "not a wheel"],
)  # fmt: skip
def test_another_pyinfra_turns_native_off_as_a_whole(
    change: Callable[[pytest.MonkeyPatch, Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts, and our own operations' facts. A plain file command stays in the process, for safety's sake."""
    record = tmp_path / "RECORD"
    record.write_text(RECORD.read_text())
    monkeypatch.setattr(registry, "_record", lambda: record)
    change(monkeypatch, record)
    assert registry.off_reason() == REASON
    state, children = our_state(native=True), list[str]()
    connector_of(state).after_child = lambda name, _seconds: children.append(name)
    with within(state) as host:
        assert host.get_fact(files.File, path="/etc/passwd")
        assert host.run_shell_command(f"touch {tmp_path}/touched")[0]
    assert children == ["fact File"]
    assert (tmp_path / "touched").exists()


def test_the_run_shows_that_native_is_off(tmp_path: Path, machine_root: Path) -> None:
    """The role's module changes the version, before the first fact is asked."""
    root = write(tmp_path / "ops", ops('server.shell(commands=["true"])', machine_root))
    module = root / "roles/site/__init__.py"
    module.write_text(f'import pyinfra\n\npyinfra.__version__ = "3.10.1"\n{module.read_text()}')
    output = io.StringIO()
    assert converged(root, run=new_run(output=output)).changed == 1
    assert REASON in output.getvalue()


@pytest.mark.parametrize(("native", "messages"), [(True, [REASON]), (False, [])])
def test_native_off_is_logged_under_pyinfras_own_command(
    native: bool, messages: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pyinfra, "__version__", "3.10.1")
    with within(pyinfra_state()) as host:
        take_over(host, native=native, timeout=60)
    assert caplog.messages == messages


def test_every_native_answer_is_in_the_document() -> None:
    """It says for what "equal to pyinfra" holds."""
    text = (REPOSITORY / "docs/roles.md").read_text().partition("## Equal to pyinfra")[2]
    facts = next(line for line in text.splitlines() if line.startswith("| facts "))
    answered = {
        name
        for module in registry._ANSWERED
        for table in ("FACT_VALUE", "COMMAND_OUTPUT")
        for name in getattr(import_module(f"pyinfra_solo.native.{module}"), table, {})
    }
    assert set(re.findall(r"`(\w+)`", facts)) == answered
    listed = next(line for line in text.splitlines() if line.startswith("| commands `mkdir"))
    assert set(re.findall(r"`(\w+)", listed)) == set(commands._COMMANDS)


def test_facts_of_a_roles_own_are_left_to_pyinfra() -> None:
    class File(files.File):
        """Another one, of the same name."""

    own = File
    assert registry.answer_to(own) is None
    own.__module__ = "pyinfra.facts.files"
    registry.answer_to.cache_clear()
    assert registry.answer_to(own) is None
    assert registry.answer_to(files.Block) is None
    assert registry.answer_to(server.Kernel) is None
