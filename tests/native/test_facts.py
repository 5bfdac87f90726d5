"""A fact that is answered in the process equals pyinfra's own, through a shell."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyinfra.api import Host
from pyinfra.facts import deb, files, server, systemd

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native.pending_files import PendingFiles
from pyinfra_solo.native.registry import answer_to
from tests.support import both_ways as ways
from tests.support.apart import mount_over, run_apart
from tests.support.both_ways import Comparison, our_state, without
from tests.support.pyinfra_api import pyinfra_state, within


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """pyinfra's own."""
    with within(pyinfra_state()) as theirs:
        yield theirs


@pytest.fixture
def facts(host: Host) -> Comparison:
    return Comparison(host)


@pytest.mark.parametrize(
    ("fact", "own"), [(files.File, "file"), (files.Directory, "folder"), (files.Link, "link")]
)
def test_any_file_has_the_status_that_stat_prints(
    fact: type[Any], own: str, facts: Comparison, tmp_path: Path
) -> None:
    """Names and targets of all bytes; every kind, mode, owner and time that the file system keeps."""
    number = count()

    @settings(ways.FEW, max_examples=120)
    @given(ways.NAMES, st.one_of(st.just(own), ways.KINDS), ways.TARGETS, st.integers(0, 0o7777), ways.OWNERS, ways.OWNERS, ways.TWO_TIMES, ways.ENDS)  # fmt: skip
    @example("a", "file", "a", 0o7777, 0, 0, (-1, -1_500_000_000), "")
    @example("a" + ways.STAT_OUTPUT, "file", "a", 0o644, 0, 0, (0, 0), "")
    @example("a", "link", "a" + ways.STAT_OUTPUT, 0, 0, 0, (0, 0), "")
    @example("loop", "link", "loop", 0, 0, 0, (0, 0), "")
    @example("loop", "link", "loop", 0, 0, 0, (0, 0), "/x")
    def holds(
        name: str, kind: str, target: str, mode: int, owner: int, group: int, times: tuple[int, int], end: str
    ) -> None:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        path = f"{folder}/{name}"
        ways.create(path, kind, target, mode, owner, group, times)
        facts.same(fact, path=path + end, but=("atime",) if kind == "link" else ())

    holds()
    assert facts.share() > 0.3, facts.count
    assert facts.count[f"{fact.__name__}: something"] > 3, facts.count
    assert facts.count[f"{fact.__name__}: None"] > 3, facts.count
    assert facts.count[f"{fact.__name__}: False"] > 3, facts.count


def test_acl_and_immutable_flag_change_no_status(facts: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    os.setxattr(file, "system.posix_acl_access", ways.ACL_FOR_NOBODY)
    free = ways.with_flag("i", file)
    try:
        assert facts.same(files.File, path=str(file))["mode"] == 770
        facts.same(files.Sha1File, path=str(file))
    finally:
        free()


@pytest.mark.parametrize(
    "path", ["", "relative", "~/x", "//etc/passwd", "/etc/../etc/passwd", "/etc/passwd/", "/", "/etc/mtab", "/dev/null",
             "/proc/self", "/etc/../proc/self/exe", "//dev/fd", "/" + "x" * 300, "/etc/" + "x/" * 3000]
)  # fmt: skip
@pytest.mark.parametrize("fact", [files.File, files.Link, files.Sha1File])
def test_a_path_that_is_not_plain_means_the_same(fact: type[Any], path: str, facts: Comparison) -> None:
    facts.same(fact, path=path, but=("atime",))


def test_digests_are_those_of_sha1sum(facts: Comparison, tmp_path: Path) -> None:
    number = count()

    @settings(ways.FEW, max_examples=60)
    @given(ways.NAMES, st.sampled_from(["file", "file", "file", "link", "folder", "absent"]), ways.BYTES, ways.ENDS)  # fmt: skip
    @example("a b", "file", b"", "")
    @example("a", "file", b"a\rb\x0bc\n", "")
    def holds(name: str, kind: str, data: bytes, end: str) -> None:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        (folder / "real").write_bytes(data)
        if kind == "file":
            (folder / "real").rename(folder / name)
        elif kind == "link":
            (folder / name).symlink_to("real")
        elif kind == "folder":
            (folder / name).mkdir()
        facts.same(files.Sha1File, path=f"{folder}/{name}{end}")

    holds()
    assert facts.share() > 0.3, facts.count
    assert facts.count["Sha1File: something"] > 3, facts.count


def test_found_lines_are_those_of_grep(facts: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "file"

    @settings(ways.FEW, max_examples=350)
    @given(ways.PATTERNS, ways.TEXTS, st.sampled_from(["", "\n", "\n", "\r\n", "\0", "é\n"]))
    @example("", "\n\n", "")
    @example("^$", "a\n\nb", "\n")
    @example(r"^a\$", "a$b", "\n")
    @example(r"a\\$", "a\\", "\n")
    @example("^*a", "*a", "\n")
    @example("$", "", "")
    @example("a", "a\rb\x0bc\n", "\n")
    def holds(pattern: str, text: str, end: str) -> None:
        file.write_text(text + end, newline="")
        facts.same(files.FindInFile, path=str(file), pattern=pattern)

    holds()
    assert facts.share() > 0.2, facts.count
    assert facts.count["FindInFile: something"] > 10, facts.count
    assert facts.count["FindInFile: []"] > 10, facts.count


def test_lines_of_an_absent_file_are_those_of_grep(facts: Comparison, tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("absent")
    for name in ("absent", "nowhere", "", "absent/x"):
        facts.same(files.FindInFile, path=f"{tmp_path}/{name}", pattern="a")
    assert facts.count["answered"] > 0


def test_a_line_that_is_pyinfras_own_marker_is_taken_for_it(facts: Comparison, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(f"__pyinfra_exists_{file}\n__pyinfra\n")
    assert facts.same(files.FindInFile, path=str(file), pattern="__pyinfra.*") == []


@pytest.mark.parametrize("name", ["Groups", "Os", "Users"])
def test_facts_of_this_machine_are_those_of_its_tools(name: str, facts: Comparison) -> None:
    assert facts.same(getattr(server, name)) is not UNKNOWN


@pytest.mark.parametrize("name", ["TMPDIR", "TMP", "TEMP"])
@pytest.mark.parametrize("folder", ["{here}", "{here}/absent", "", "{here}/a\\tb", "-n"])
def test_the_temporary_folder_is_the_shells(
    folder: str, name: str, facts: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a\\tb").mkdir()
    for other in ("TMPDIR", "TMP", "TEMP"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, folder.format(here=tmp_path))
    expected = {"{here}": str(tmp_path), "{here}/a\\tb": UNKNOWN}.get(folder, "")
    assert facts.same(server.TmpDir) == expected


def test_packages_are_those_of_dpkg(facts: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(facts.same(deb.DebPackages)) > 20
    monkeypatch.setenv("COLUMNS", "20")
    assert facts.same(deb.DebPackages) is UNKNOWN, "dpkg then cuts names"


@pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="systemd does not run here")
@pytest.mark.parametrize("units", [None, "dbus.service", ["dbus.service", "absent.service", "-.mount"], []])
@pytest.mark.parametrize("fact", [systemd.SystemdStatus, systemd.SystemdEnabled])
def test_units_are_those_of_systemctl(fact: type[Any], units: Any, facts: Comparison) -> None:
    facts.same(fact, services=units)


def in_namespace(check: Callable[[Any, Path], list[Any]], folder: Path) -> Any:
    """What `check` returns, given a comparison with pyinfra, in a mount namespace of its own."""
    return run_apart(compare_apart, check.__name__, folder, own_mounts=True)


def compare_apart(check: str, folder: str) -> Any:
    with within(pyinfra_state()) as theirs:
        return globals()[check](Comparison(theirs), Path(folder))


def length(value: Any) -> Any:
    return None if value is UNKNOWN else len(value)


def replace(folder: Path, path: str, data: bytes) -> None:
    """Put a file over a real one, in this process's mount namespace."""
    beside = folder / path.strip("/").replace("/", "_")
    beside.write_bytes(data)
    subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False)
    if not Path(path).exists():
        parent, copy = Path(path).parent, Path(f"{beside}.parent")
        subprocess.run(["cp", "-a", parent, copy], check=True)
        (copy / Path(path).name).touch()
        mount_over(str(parent), copy)
    mount_over(path, beside)


ACCOUNTS = {
    "root:x:0:0:root:/root:/bin/bash\n\none:x:54321:8:One,é|,,:/home/one dir:\n": 2,
    "root:x:0:0:a\\tb\\c:/root:/bin/sh\n": None,
    "root:x:0:0:root:/root:/bin/sh\nRoot:x:1:1::/:/bin/sh\n": None,
    "root:x:0:0:root:/root:/bin/sh\nroot:x:0:0::/:/bin/sh\n": None,
    "root:x:0:0:root:/root:/bin/sh\nlike-root:x:0:0::/:/bin/sh\n": None,
    "root:x:0:0:root:/root:/bin/sh\nno-group:x:7:54399::/:/bin/sh\n": None,
    "root:x:0:0:a\x0bb\rc:/root:/bin/sh\na$:x:1:1::/:\n": None,
    "root:x:0:0:root:/root:/bin/sh\nlogged-in:x:3:8:\u2028:/:\nmany_groups:x:9:8::/:/bin/sh": 3,
}
"""/etc/passwd -> the number of accounts in the native answer; None: falls back to the shell command."""


def accounts_of_all_kinds(facts: Comparison, folder: Path) -> list[Any]:
    os.environ["TZ"] = "Europe/Berlin"
    over = partial(replace, folder)
    groups = b"root:x:0:\nmail:x:8:root,one\ntwo:x:77:many_groups,logged-in\nmore:x:78:many_groups\n"
    over("/etc/group", groups)
    over("/etc/shadow", b"root:*:1::\nlogged-in:$6$a$b:1::\nold:!:1:::\n")
    login = (1_700_000_000).to_bytes(4, "little") + b"pts/0".ljust(32, b"\0") + b"192.0.2.1".ljust(256, b"\0")
    over("/var/log/lastlog", bytes(292 * 3) + login)  # lastlog.h
    found: list[Any] = []
    for text in ACCOUNTS:
        over("/etc/passwd", text.encode())
        found.append(length(facts.same(server.Users)))
    logins = facts.same(server.Users)
    found.append([name for name, user in logins.items() if user["login_time"]])
    found.append(length(facts.same(server.Groups)))
    over("/etc/shadow", b"root:*:1::\nroot:!:1::\n")
    found.append(length(facts.same(server.Users)))
    over("/etc/passwd", b"root:x:0:0:\xe9:/root:/bin/sh\n")
    found.append(length(facts.same(server.Users)))
    over("/etc/group", b"a:x:1:\rb:x:2:\n\nc\n")
    found.append(length(facts.same(server.Groups)))
    return found


def test_accounts_of_all_kinds_are_those_of_the_shell(tmp_path: Path) -> None:
    """Comments with escapes of echo(1), groups without a name, two of one name or number, one who has logged in."""
    found = in_namespace(accounts_of_all_kinds, tmp_path)
    assert found == [*ACCOUNTS.values(), ["logged-in"], 4, None, None, 1]


def owners_that_change(facts: Comparison, folder: Path) -> list[Any]:
    (folder / "etc").mkdir()
    subprocess.run(["cp", "-a", "/etc/passwd", "/etc/group", folder / "etc"], check=True)
    mount_over("/etc", folder / "etc")
    file = folder / "file"
    file.touch()
    os.chown(file, 54321, 54321)
    found: list[Any] = []
    for name, key in (("passwd", "user"), ("group", "group")):
        found.append(facts.same(files.File, path=str(file))[key])
        whole = Path("/etc", name).read_bytes()
        PendingFiles().put(f"/etc/{name}", whole + b"put:x:54321:54321::/:/bin/sh\n")
        found.append(facts.same(files.File, path=str(file))[key])
        Path("/etc", name).write_bytes(whole + b"own:x:54321:54321::/:/bin/sh\n")
        found.append(facts.same(files.File, path=str(file))[key])
    return found


def test_an_owner_has_the_name_of_now(tmp_path: Path) -> None:
    """Also when an uploaded file, or a role's own function, gave it one, and no child of ours."""
    assert in_namespace(owners_that_change, tmp_path) == ["UNKNOWN", "put", "own"] * 2


def stanza(name: str, status: str, version: str, more: str = "", architecture: str = "amd64") -> str:
    head = f"Package: {name}\nStatus: {status}\nPriority: optional\nMaintainer: m\nArchitecture: {architecture}\n"
    return f"{head}{more}Version: {version}\nDescription: d\n Status: install ok installed\n .\n more\n\n"


def packages_of_all_states(facts: Comparison, folder: Path) -> list[Any]:
    usual = "".join([
        stanza("a", "install ok installed", "1:2.3~rc1-4+b1"), stanza("b", "hold ok installed", "1"),
        stanza("c", "deinstall ok config-files", "2"), stanza("d", "install reinstreq installed", "1"),
        stanza("e", "install ok half-installed", "1"), stanza("f", "install ok unpacked", "1"),
        stanza("g", "install ok installed", "1", "Multi-Arch: same\n"),
        stanza("g", "install ok installed", "2", "Multi-Arch: same\n", "i386"),
        stanza("h", "install ok triggers-pending", "1", "Triggers-Pending: x\n"),
        stanza("i", "deinstall ok installed", "1"),
    ])  # fmt: skip
    odd = stanza("k", "install ok installed", "1", "Multi-Arch: same\n", "musl-linux-amd64")
    found: list[Any] = []
    for text in (usual, usual + odd, ""):
        replace(folder, "/var/lib/dpkg/status", text.encode())
        found.append(length(facts.same(deb.DebPackages)))
    return found


def test_packages_of_all_states_are_those_of_dpkg(tmp_path: Path) -> None:
    """Held, half installed, of several architectures; and one of which dpkg -l prints more than is understood."""
    assert in_namespace(packages_of_all_states, tmp_path) == [3, None, 0]


def test_large_files_and_long_lines_are_left_to_a_child(facts: Comparison, tmp_path: Path) -> None:
    """A time-out can end it. Python's search may take the square of a line's length."""
    with (tmp_path / "large").open("wb") as opened:
        opened.truncate(2**40)
    (tmp_path / "long").write_text("a" * 100_000)
    assert facts.same(files.Sha1File, path=str(tmp_path / "large")) is UNKNOWN
    assert facts.same(files.FindInFile, path=str(tmp_path / "long"), pattern=".*.*b") is UNKNOWN


def test_an_iterator_of_units_is_left_to_pyinfra_unread(facts: Comparison) -> None:
    names = iter(["a.service"])
    assert facts.same(systemd.SystemdStatus, services=names) is UNKNOWN
    assert next(names) == "a.service"


@pytest.mark.parametrize(
    ("fact", "wrong"),
    [(files.File, {}), (files.File, {"path": "/", "more": 1}), (files.File, {"path": None}), (files.File, {"path": b"/"}), (files.File, {"kind": "file", "path": "/"}),
     (files.FindInFile, {"path": "/etc/passwd", "pattern": None}), (server.Os, {"more": 1}),
     (systemd.SystemdStatus, {"more": None}), (deb.DebPackages, {"more": 1})],
)  # fmt: skip
def test_wrong_arguments_are_left_to_pyinfra(fact: type, wrong: dict[str, Any]) -> None:
    answer = answer_to(fact)
    assert answer
    assert answer(**wrong) is UNKNOWN


@pytest.mark.parametrize(
    ("fact", "wrong"), [(files.File, {"paths": "/"}), (files.File, {}), (server.Home, {"user": "a b"})]
)
def test_wrong_arguments_fail_as_in_pyinfra(fact: type[Any], wrong: dict[str, Any], host: Host) -> None:
    with pytest.raises(Exception, match=r".") as theirs:
        host.get_fact(fact, **wrong)
    with within(our_state(native=True)) as mine, pytest.raises(theirs.type) as ours:
        mine.get_fact(fact, **wrong)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("native", [True, False])
def test_get_fact_of_our_host_equals_pyinfras(native: bool, host: Host, tmp_path: Path) -> None:
    """With arguments by position, of another folder and of another account."""
    (tmp_path / "file").write_text("text\n")
    path = str(tmp_path / "file")
    questions: list[tuple[type[Any], tuple[Any, ...], dict[str, Any]]] = [
        (files.File, (), {"path": path}),
        (files.File, (path,), {}),
        (files.Sha1File, (), {"path": "file", "_chdir": str(tmp_path)}),
        (files.FileContents, (), {"path": path, "_su_user": "nobody", "_su_shell": "/bin/sh"}),
        (server.Home, (), {"user": "nobody"}),
    ]
    with within(our_state(native=native)) as ours:
        for fact, args, kwargs in questions:
            theirs = without(host.get_fact(fact, *args, **kwargs), ("atime",))
            assert without(ours.get_fact(fact, *args, **kwargs), ("atime",)) == theirs
