"""What a service lacks: by systemd's properties, and by the digest of what it was started with."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyinfra_solo.operations import service
from pyinfra_solo.operations.prelude import ProgramError
from pyinfra_solo.operations.service import program
from tests.operations.conftest import Ask
from tests.support.files import deep_folder

RUNNING = {"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "active", "NeedDaemonReload": "no",
           "ConditionResult": "yes", "ConditionTimestampMonotonic": "1234"}  # fmt: skip
DECLINED = {"ActiveState": "inactive", "ConditionResult": "no"}


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that shows the file `unit` and notes its calls in `calls`."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/systemctl"
    fake.write_text(f'#!/bin/sh\n[ "$1" = show ] && exec cat {tmp_path}/unit\necho "$*" >>{tmp_path}/calls\n')
    fake.chmod(0o755)
    monkeypatch.setattr(program, "SYSTEMD", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def show(systemd: Path, **more: str) -> None:
    lines = [f"{key}={value}" for key, value in {**RUNNING, **more}.items()]
    (systemd / "unit").write_text("\n".join(lines) + "\n")


def wanted(folder: Path, **more: Any) -> dict[str, Any]:
    right = {"enabled": True, "running": True, "restart": [], "reload": [], "force": "no"}
    return {"name": "demo", "records": str(folder / "records"), **right, **more}


@pytest.mark.parametrize(
    ("unit", "options", "enabled", "verb"),
    [
        ({}, {}, True, "none"), ({"ActiveState": "reloading"}, {}, True, "none"),
        ({"ActiveState": "inactive"}, {}, True, "start"), ({"ActiveState": "failed"}, {}, True, "start"),
        ({"ActiveState": "activating"}, {}, True, "start"),
        ({"ActiveState": "failed"}, {"running": False}, True, "none"),
        ({"ActiveState": "failed"}, {"force": "restart"}, True, "start"),
        (DECLINED, {}, True, "none"), (DECLINED, {"force": "restart"}, True, "none"),
        ({**DECLINED, "ConditionTimestampMonotonic": "0"}, {}, True, "start"),
        ({"UnitFileState": "disabled"}, {}, False, "none"), ({"UnitFileState": ""}, {}, False, "none"),
        ({"UnitFileState": "masked-runtime"}, {}, False, "none"), ({"UnitFileState": "static"}, {}, True, "none"),
        ({"UnitFileState": "disabled"}, {"enabled": False}, True, "none"),
        ({}, {"force": "reload"}, True, "reload"), ({}, {"force": "restart"}, True, "restart"),
        ({}, {"reload": ["/etc/passwd"]}, True, "restart"),  # nothing is noted
        ({}, {"restart": ["/etc/passwd"], "reload": ["/etc/passwd"]}, True, "restart"),
    ],
)  # fmt: skip
def test_a_unit_needs_what_its_properties_say(
    systemd: Path, unit: dict[str, str], options: dict[str, Any], enabled: bool, verb: str
) -> None:
    show(systemd, **unit)
    found = program.check(**wanted(systemd, **options))
    assert found == {"init": "systemd", "enabled": enabled, "verb": verb}


@pytest.mark.parametrize(
    ("unit", "calls"),
    [
        ({}, []),
        ({"NeedDaemonReload": "yes"}, ["daemon-reload"]),
        ({"ActiveState": "failed"}, ["reset-failed -- demo.service", "start -- demo.service"]),
        (
            {"LoadState": "not-found", "UnitFileState": "", "ActiveState": "inactive"},
            ["daemon-reload", "--quiet enable -- demo.service", "reset-failed -- demo.service", "start -- demo.service"],
        ),
    ],
)  # fmt: skip
def test_systemd_is_asked_for_what_is_missing(systemd: Path, unit: dict[str, str], calls: list[str]) -> None:
    show(systemd, **unit)
    program.apply(**wanted(systemd))
    file = systemd / "calls"
    assert (file.read_text().splitlines() if file.exists() else []) == calls


def test_a_failure_names_the_verb_and_the_log(systemd: Path) -> None:
    show(systemd)
    (systemd / "bin/systemctl").write_text(f"#!/bin/sh\n[ $1 = show ] && exec cat {systemd}/unit\nexit 5\n")
    journal = systemd / "bin/journalctl"
    journal.write_text("#!/bin/sh\necho 'ValueError: no port'\n")
    journal.chmod(0o755)
    with pytest.raises(
        ProgramError, match=r"could not reload: ValueError: no port. See its log: journalctl -u demo$"
    ):
        program.apply(**wanted(systemd, force="reload"))
    journal.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ProgramError, match=r"demo: could not reload. See its log: journalctl -u demo$"):
        program.apply(**wanted(systemd, force="reload"))
    assert not (systemd / "records/demo").exists()


@pytest.fixture
def upstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that stand in for initctl and service, and note their calls in `calls`."""
    (tmp_path / "bin").mkdir()
    for name in ("initctl", "service"):
        fake = tmp_path / "bin" / name
        fake.write_text(
            f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\ncase $1 in version) echo "init (upstart 1.13.2)";;\n'
            f'status) echo "$2 stop/waiting";; *) [ ! -e {tmp_path}/broken ];; esac\n'
        )
        fake.chmod(0o755)
    monkeypatch.setattr(program, "SYSTEMD", tmp_path / "nothing")
    monkeypatch.setattr(program, "JOBS", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def test_upstart_is_asked_for_its_jobs_and_service_for_others(upstart: Path) -> None:
    (upstart / "demo.conf").touch()
    assert program.check(**wanted(upstart)) == {"init": "upstart", "enabled": True, "verb": "start"}
    program.apply(**wanted(upstart))
    other = {**wanted(upstart), "name": "nginx", "enabled": False}
    assert program.check(**other)["verb"] == "none"
    calls = (upstart / "calls").read_text().splitlines()
    assert [call for call in calls if "version" not in call] == [
        "initctl status demo", "initctl status demo", "initctl start demo", "service nginx status",
    ]  # fmt: skip


def test_a_failure_under_upstart_names_the_job_s_log(upstart: Path) -> None:
    (upstart / "demo.conf").touch()
    (upstart / "broken").touch()
    with pytest.raises(ProgramError, match=r"could not start. See its log: /var/log/upstart/demo.log$"):
        program.apply(**wanted(upstart))
    (upstart / "demo.conf").unlink()
    with pytest.raises(ProgramError, match=r"could not start. See its log: /var/log/demo.log$"):
        program.apply(**wanted(upstart, enabled=False))


def test_a_systemd_that_does_not_answer_is_an_error(systemd: Path) -> None:
    with pytest.raises(ProgramError, match=r"`systemctl show demo.service` failed with status 1"):
        program.check(**wanted(systemd))


def test_a_baseline_is_noted_once(ask: Ask, tmp_path: Path) -> None:
    config = tmp_path / "config"
    arguments = wanted(tmp_path, reload=[str(config)])
    assert ask(service.PROGRAM, "baseline", **arguments) in ("systemd", "sysv")
    first = (tmp_path / "records/demo").read_text()
    config.write_text("text")
    ask(service.PROGRAM, "baseline", **arguments)
    assert (tmp_path / "records/demo").read_text() == first
    assert sorted(json.loads(first)) == ["reload", "restart"]


def test_records_are_for_root_alone_also_where_they_were_not(systemd: Path, tmp_path: Path) -> None:
    """They have digests of environment files, from which a short secret can be guessed."""
    secret, records = tmp_path / "environment", tmp_path / "records"
    secret.write_text("PIN=4711\n")
    records.mkdir(mode=0o755)
    for name in ("demo", "older"):
        (records / name).write_text("{}\n")
    before = list(records.iterdir())
    program.baseline(**wanted(systemd, restart=[str(secret)]))
    for path in (records, *before):
        assert path.stat().st_mode & 0o077 == 0
    show(systemd)
    program.apply(**wanted(systemd, restart=[str(secret)]))
    assert (records / "demo").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', "\0", '{"restart": 1}'])
def test_a_record_that_cannot_be_read_is_as_none(systemd: Path, text: str) -> None:
    show(systemd)
    (systemd / "records").mkdir()
    (systemd / "records/demo").write_text(text)
    assert program.check(**wanted(systemd, restart=["/etc/passwd"]))["verb"] == "restart"


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
TREES = st.dictionaries(NAMES, st.one_of(st.binary(max_size=4), NAMES.map(Path)), max_size=4)


def planted(folder: Path, tree: dict[str, bytes | Path]) -> Path:
    (folder / "in").mkdir(parents=True)
    for number, (name, content) in enumerate(tree.items()):
        path = folder / ("in" if number % 2 else ".") / f"_{name}"
        if isinstance(content, Path):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
    return folder


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TREES, TREES)
def test_a_digest_is_equal_for_equal_trees_alone(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes | Path], other: dict[str, bytes | Path]
) -> None:
    digests = []
    for tree in (one, one, other):
        root = tmp_path_factory.mktemp("tree")
        here = Path.cwd()
        os.chdir(planted(root / "top", tree).parent)
        digests.append(program._digest(["top"]))
        os.chdir(here)
    same = list(one.items()) == list(other.items())
    assert digests[0] == digests[1]
    assert not same or digests[2] == digests[0]
    if sorted(one) != sorted(other) or one != other:
        assert digests[2] != digests[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_digest_reads_nothing_that_another_account_may_write(tmp_path: Path) -> None:
    """A sparse file of a terabyte, or folders in folders, would keep the machine out of service."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "endless").touch()
    os.truncate(top / "endless", 1 << 40)
    os.chown(top / "endless", 65534, 65534)
    (top / "shared").mkdir()
    deep = top / "shared"
    deep.chmod(0o777)
    os.close(deep_folder(deep))
    digests = {program._digest([str(top)])}
    os.utime(top / "endless", (1, 1))
    digests.add(program._digest([str(top)]))
    (deep / "new").touch()
    digests.add(program._digest([str(top)]))
    assert len(digests) == 3
    assert program._digest([str(top)]) in digests
    subprocess.run(["rm", "-rf", deep], check=True)


def test_a_digest_waits_for_no_pipe_and_tells_its_kinds_apart(tmp_path: Path) -> None:
    path = tmp_path / "path"
    kinds = [
        lambda: os.mkfifo(path), lambda: path.write_text(""), lambda: path.symlink_to("x"),
        lambda: path.symlink_to("y"), lambda: path.write_text("text"), lambda: None,
    ]  # fmt: skip
    alone, in_its_folder = set(), set()
    for make in kinds:
        path.unlink(missing_ok=True)
        make()  # type: ignore[no-untyped-call]
        alone.add(program._digest([str(path)]))
        in_its_folder.add(program._digest([str(tmp_path)]))
    assert len(alone) == len(in_its_folder) == len(kinds)
