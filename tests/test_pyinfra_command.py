"""`pyinfra @local deploy.py`: pyinfra's own command drives, and the rules are those of the line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import listing, stamps
from tests.support.machine import LocalMachine, install_runtime
from tests.support.ops_repo import ops, write
from tests.support.repository import Repository

FILE = 'files.put(name="the file is there", src=StringIO(data.text), dest=f"{data.target}/file", mode="640")'
WELL = 'checks.command(f"test -f {data.target}/file", within=0.5)'
LOCK = "# nothing\n"


@pytest.fixture
def machine(tmp_path: Path) -> LocalMachine:
    return LocalMachine(tmp_path / "machine")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def tree(target: Path, operations: str, healthy: str = "") -> Path:
    return write(target.parent / "tree", ops(operations, target, healthy))


def look(machine: LocalMachine, target: Path) -> str:
    """An operation that notes whether the gate is open while it runs."""
    line = f"test -e {machine.ping} && echo open >> {target}/seen || echo closed >> {target}/seen"
    return f"\nserver.shell(name='the gate is looked at', commands={line!r})\n"


def test_it_converges_judges_and_opens_the_gate_last(machine: LocalMachine, target: Path) -> None:
    root = tree(target, FILE + look(machine, target), WELL)
    machine.pyinfra(root).expect(0)
    assert (target / "seen").read_text() == "closed\n"
    assert machine.in_service
    statement = json.loads((machine.run_folder / "statement.json").read_text())
    assert (statement["role"], statement["stage"], statement["sha"]) == ("site", "staging", "unknown")
    assert len(statement["checks"]) == 1


def test_the_same_tree_and_the_same_gate_come_of_the_line(
    machine: LocalMachine, target: Path, tmp_path: Path
) -> None:
    """Modes, owners and contents, whichever of the two drives."""
    operations = """
        files.directory(name="a folder", path=f"{data.target}/folder", mode="2750", group="adm")
        files.put(name="a file", src=StringIO("caf\\u00e9"), dest=f"{data.target}/folder/file", mode="640", user="nobody")
        files.template(name="a template", src="roles/site/it.j2", dest=f"{data.target}/it", text=data.text)
        files.line(name="a line", path=f"{data.target}/it", line="more")
        files.link(name="a link", path=f"{data.target}/link", target="folder/file")
        server.shell(name="a command", commands="echo said > said", _chdir=data.target, _env={"A": "b"})
    """
    files = {
        **ops(operations, target, WELL.replace("file", "it")),
        "roles/site/it.j2": "{{ text }}\n",
        "requirements.lock": LOCK,
    }
    machine.pyinfra(write(tmp_path / "tree", files)).expect(0)
    by_pyinfra = listing(target)
    subprocess.run(["find", str(target), "-mindepth", "1", "-delete"], check=True)

    other = LocalMachine(tmp_path / "other")
    install_runtime(other, LOCK)
    repository = Repository(tmp_path / "ops.git").make()
    repository.commit(files, "one")
    other.configure(ops=f'remotes = ["{repository.path}"]')
    other.solo("run").expect(0)
    assert listing(target) == by_pyinfra
    assert listing(other.run_folder / "gate") == listing(machine.run_folder / "gate")
    said, theirs = (json.loads((one.run_folder / "statement.json").read_text()) for one in (machine, other))
    assert {key: said[key] for key in ("role", "stage", "boot_id", "checks")} == {
        key: theirs[key] for key in ("role", "stage", "boot_id", "checks")
    }


def test_what_changes_nothing_does_not_touch_the_gate(machine: LocalMachine, target: Path) -> None:
    root = tree(target, FILE)
    machine.pyinfra(root).expect(0)
    before = stamps(machine.run_folder / "gate")
    machine.pyinfra(root).expect(0)
    assert stamps(machine.run_folder / "gate") == before


@pytest.mark.parametrize(("drain", "seen"), [("on-change", "closed"), ("never", "open")])
def test_a_machine_in_service_is_treated_as_the_settings_say(
    machine: LocalMachine, target: Path, drain: str, seen: str
) -> None:
    machine.pyinfra(tree(target, FILE)).expect(0)
    machine.configure(limits=f'drain = "{drain}"')
    machine.pyinfra(tree(target, look(machine, target))).expect(0)
    assert (target / "seen").read_text() == f"{seen}\n"
    assert machine.in_service


def test_drain_always_closes_even_when_nothing_changes(machine: LocalMachine, target: Path) -> None:
    root = tree(target, FILE)
    machine.pyinfra(root).expect(0)
    before = machine.ping.stat().st_ino, machine.ping.stat().st_mtime_ns
    machine.configure(limits='drain = "always"')
    machine.pyinfra(root).expect(0)
    assert (machine.ping.stat().st_ino, machine.ping.stat().st_mtime_ns) != before


def test_a_failure_after_a_change_leaves_the_gate_closed(machine: LocalMachine, target: Path) -> None:
    """Also where a change alone would not have closed it."""
    machine.pyinfra(tree(target, FILE)).expect(0)
    machine.configure(limits='drain = "never"')
    machine.pyinfra(
        tree(target, FILE.replace("data.text", "'x'") + "\nserver.shell(name='it fails', commands='exit 1')")
    ).expect(1)
    assert not machine.in_service


def test_a_failure_before_any_change_leaves_a_machine_in_service_in(
    machine: LocalMachine, target: Path
) -> None:
    root = tree(target, FILE)
    machine.pyinfra(root).expect(0)
    (root / "deploy.py").write_text("def (\n")
    assert machine.pyinfra(root).code != 0
    assert machine.in_service


def test_what_lied_cannot_open_the_gate(machine: LocalMachine, target: Path) -> None:
    machine.pyinfra(tree(target, FILE)).expect(0)
    root = tree(target, FILE + "\nserver.shell(name='all is well', commands=f'rm {data.target}/file')", WELL)
    assert machine.pyinfra(root).code != 0
    assert not machine.in_service


def test_a_machine_whose_checks_say_no_is_closed_though_nothing_was_changed(
    machine: LocalMachine, target: Path
) -> None:
    (target / "well").touch()
    root = tree(target, FILE, WELL.replace("/file", "/well"))
    machine.pyinfra(root).expect(0)
    (target / "well").unlink()
    assert machine.pyinfra(root).code != 0
    assert not machine.in_service


def test_a_dry_run_touches_nothing(machine: LocalMachine, target: Path) -> None:
    machine.pyinfra(tree(target, FILE)).expect(0)
    root = tree(target, FILE.replace("data.text", "'other'"))
    before = listing(target), stamps(target), stamps(machine.run_folder / "gate")
    machine.pyinfra(root, "--dry").expect(0)
    assert (listing(target), stamps(target), stamps(machine.run_folder / "gate")) == before


def test_role_stage_and_values_may_be_given(machine: LocalMachine, target: Path) -> None:
    machine.config.write_text('[machine]\nec2 = "no"\n')
    root = tree(target, FILE)
    machine.pyinfra(
        root, "--data", "role=site", "--data", "stage=production", "--data", "text=goodbye"
    ).expect(0)
    assert (target / "file").read_text() == "goodbye"
    assert json.loads((machine.run_folder / "statement.json").read_text())["stage"] == "production"


@pytest.mark.parametrize(
    ("words", "settings", "code"),
    [
        (["--data", "role=stie"], None, 12),
        (["--data", "txet=x"], None, 13),
        ([], "this is not TOML", 13),
    ],
    ids=["no such role", "no such value", "unreadable settings"],
)
def test_an_error_has_the_line_s_exit_status_and_words(
    machine: LocalMachine, target: Path, words: list[str], settings: str | None, code: int
) -> None:
    root = tree(target, FILE)
    if settings:
        machine.config.write_text(settings)
    said = machine.pyinfra(root, *words).expect(code)
    assert "pyinfra-solo: " in said.stderr
    assert list(target.iterdir()) == []
    assert not machine.in_service


def test_one_at_a_time_with_the_line(machine: LocalMachine, target: Path) -> None:
    """The run lock is held until pyinfra ends, also while its operations run."""
    machine.configure(limits="lock = 0.3")
    inner = f"{sys.executable} -m pyinfra_solo run"
    root = tree(
        target,
        f"server.shell(name='a second run', commands={inner!r} + f' 2> {{data.target}}/said; echo $? > {{data.target}}/code')",
    )
    machine.pyinfra(root).expect(0)
    assert (target / "code").read_text() == "20\n"
    assert "Another run is at work: run " in (target / "said").read_text()
    assert machine.in_service
