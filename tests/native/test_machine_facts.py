"""What a fact says of the machine, answered in the process, is what pyinfra's own way says, through a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyinfra.facts import deb, server, systemd

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native import registry as known
from tests.support.both_ways import Asked
from tests.support.machine import ENGINE, REPOSITORY
from tests.support.pyinfra_api import stock_state, within

if TYPE_CHECKING:
    from pyinfra.api import Host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """pyinfra's own."""
    with within(stock_state()) as stock:
        yield stock


@pytest.fixture
def asked(host: Host) -> Asked:
    return Asked(host)


@pytest.mark.parametrize("name", ["Arch", "EtcHosts", "Groups", "Home", "Hostname", "Kernel", "KernelModules", "KernelVersion", "Mounts", "Os", "OsVersion", "Users"])  # fmt: skip
def test_this_machine_is_told_as_its_own_tools_tell_it(name: str, asked: Asked) -> None:
    assert asked.same(getattr(server, name)) is not UNKNOWN
    assert asked.count["answered"] == 1


@pytest.mark.parametrize(
    "user", ["root", "nobody", "daemon", "nobody-of-that-name", "", "Root", "a.b", "-x", "a b"]
)
def test_a_home_is_where_the_shell_says(user: str, asked: Asked) -> None:
    asked.same(server.Home, user=user)


@pytest.mark.parametrize("name", ["TMPDIR", "TMP", "TEMP"])
@pytest.mark.parametrize("folder", ["{here}", "{here}/absent", "", "{here}/a\\tb", "-n"])
def test_a_folder_for_passing_files_is_where_the_shell_says(
    folder: str, name: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a\\tb").mkdir()
    for other in ("TMPDIR", "TMP", "TEMP"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, folder.format(here=tmp_path))
    told = asked.same(server.TmpDir)
    assert told == {"{here}": str(tmp_path), "{here}/a\\tb": UNKNOWN}.get(folder, "")


COMMANDS = [
    "sh", "cat", "dpkg", "no-such-program", "[", "true", "test", "cd", "if", "chdir", "bind", "ulimit", "printf", "kill", "echo", "time",
    "a b", "-v", "", "/bin/sh", "apt-get", "g++", "x86_64-linux-gnu-gcc", "python3.11", "systemctl",
]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "",
        None,
        "/usr/bin:/bin",
        "{folder}:/usr/bin",
        "/usr/bin/:/bin",
        "bin:/bin",
        "/usr/bin::/bin",
        "{folder}/absent:/bin",
    ],
)
def test_a_program_is_where_the_shell_finds_it(
    path: str | None, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dpkg").mkdir()
    (tmp_path / "apt-get").write_text("not to be executed")
    (tmp_path / "systemctl").symlink_to("/bin/true")
    if path is not None:
        monkeypatch.setenv("PATH", path.format(folder=tmp_path))
    for command in COMMANDS if path is None or path.startswith("{") else COMMANDS[:3]:
        asked.same(server.Which, command=command)
    assert path in ("", "/usr/bin/:/bin", "bin:/bin", "/usr/bin::/bin") or asked.count["answered"] > 1


@pytest.mark.parametrize(
    "keys", [["kernel.ostype"], ["net.ipv4.ip_forward", "kernel.pid_max"], ["fs.file-max", "no.such.key"], ["vm.compact_memory"],
             ["kernel"], ["kernel.printk"], [], None, "kernel.ostype", ["kernel/ostype"], ["kernel.domainname"], ["net.ipv4.tcp_rmem"]]
)  # fmt: skip
def test_the_kernels_settings_are_told_as_sysctl_tells_them(keys: Any, asked: Asked) -> None:
    asked.same(server.Sysctl, keys=keys)


def test_keys_that_may_log_in_are_read_as_they_stand(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"# one\n\n ssh-ed25519 A b\n" + "ssh-rsa B \u2028 é\x0bc".encode())
    assert asked.same(server.AuthorizedKeys, user="root", path=str(tmp_path / "keys"))
    assert asked.same(server.AuthorizedKeys, user="root", path=str(tmp_path / "absent")) == []
    asked.same(server.AuthorizedKeys, user="root")


def test_packages_are_those_of_dpkg(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(asked.same(deb.DebPackages)) > 20
    monkeypatch.setenv("COLUMNS", "20")
    assert asked.same(deb.DebPackages) is UNKNOWN, "dpkg then cuts names"


@pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="systemd is not at work here")
@pytest.mark.parametrize("units", [None, "dbus.service", ["dbus.service", "absent.service", "-.mount"], []])
@pytest.mark.parametrize("fact", [systemd.SystemdStatus, systemd.SystemdEnabled])
def test_units_are_told_as_systemctl_tells_them(fact: type[Any], units: Any, asked: Asked) -> None:
    asked.same(fact, services=units)


def test_units_that_can_be_read_once_only_are_left_to_pyinfra() -> None:
    names = iter(["a.service"])
    answer = known.answer_to(systemd.SystemdStatus)
    assert answer
    assert answer(services=names) is UNKNOWN
    assert next(names) == "a.service"


_IN_A_NAMESPACE = """
import os, sys, subprocess
from pathlib import Path
from pyinfra.facts import deb, server
from pyinfra_solo.native import UNKNOWN, registry as known
from tests.support.pyinfra_api import stock_state, within
from tests.support.both_ways import ACL_FOR_NOBODY, FEW, Asked, our_state, with_flag

def over(path, data):
    # Bound over the real one, in this process's own mount namespace.
    beside = Path(sys.argv[1]) / path.strip("/").replace("/", "_")
    beside.write_bytes(data)
    subprocess.run(["umount", path], stderr=subprocess.DEVNULL)
    subprocess.run(["mount", "--bind", beside, path], check=True)

with within(stock_state()) as host:
    def same(fact, **asked):
        ours = known.answer_to(fact)(**asked)
        if ours is UNKNOWN:
            print("unknown")
        else:
            theirs = host.get_fact(fact, **asked)
            assert ours == theirs, (ours, theirs)
            print("answered", len(ours))
"""


def in_a_namespace(code: str, folder: Path) -> list[str]:
    """What `code` says, in a process whose mounts are its own: `over` puts a file over a real one."""
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _IN_A_NAMESPACE + code, str(folder)],
        env={**os.environ, "PYTHONPATH": f"{ENGINE}:{REPOSITORY}"}, cwd=REPOSITORY,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ACCOUNTS = [
    "root:x:0:0:root:/root:/bin/bash\n\none:x:54321:8:One,é|,,:/home/one dir:\n",
    "root:x:0:0:a\\tb\\c:/root:/bin/sh\n",
    "root:x:0:0:root:/root:/bin/sh\nRoot:x:1:1::/:/bin/sh\n",
    "root:x:0:0:root:/root:/bin/sh\nroot:x:0:0::/:/bin/sh\n",
    "root:x:0:0:root:/root:/bin/sh\nno-group:x:7:54399::/:/bin/sh\n",
    "root:x:0:0:a\x0bb\rc:/root:/bin/sh\na$:x:1:1::/:\n",
    "root:x:0:0:root:/root:/bin/sh\nlogged-in:x:3:8:\u2028:/:\nmany_groups:x:9:8::/:/bin/sh",
]


def test_accounts_of_all_kinds_are_told_as_the_shell_tells_them(tmp_path: Path) -> None:
    """Comments with what echo(1) takes for an escape, groups without a name, two of one name, one who has logged in."""
    said = in_a_namespace(
        f"""
    import struct
    os.environ["TZ"] = "Europe/Berlin"
    over("/etc/group", b"root:x:0:\\nmail:x:8:root,one\\ntwo:x:77:many_groups,logged-in\\nmore:x:78:many_groups\\n")
    over("/etc/shadow", b"root:*:1::\\nlogged-in:$6$a$b:1::\\nold:!:1:::\\n")
    over("/var/log/lastlog", bytes(292 * 3) + struct.pack("=i32s256s", 1_700_000_000, b"pts/0", b"192.0.2.1"))
    for text in {ACCOUNTS!r}:
        over("/etc/passwd", text.encode())
        same(server.Users)
    same(server.Groups)
    over("/etc/shadow", b"root:*:1::\\nroot:!:1::\\n")
    same(server.Users)
    over("/etc/passwd", b"root:x:0:0:\\xe9:/root:/bin/sh\\n")
    same(server.Users)
    over("/etc/group", b"a:x:1:\\rb:x:2:\\n\\nc\\n")
    same(server.Groups)
    over("/etc/hosts", b"127.0.0.1 a\\x0bb # c\\n\\n::1 a a\\n127.0.0.1 c")
    same(server.EtcHosts)
""",
        tmp_path,
    )
    assert said == [
        "answered 2",
        "unknown",
        "unknown",
        "unknown",
        "unknown",
        "unknown",
        "answered 3",
        "answered 4",
        "unknown",
        "unknown",
        "answered 1",
        "answered 2",
    ]


def test_an_owner_s_name_is_that_of_now(tmp_path: Path) -> None:
    """Also when it is a file that was put which gave it one, or a role's own function, and no child of ours."""
    said = in_a_namespace(
        """
    from pyinfra.facts import files
    from pyinfra_solo.native.pending_files import PendingFiles
    (Path(sys.argv[1]) / "etc").mkdir()
    subprocess.run(["cp", "-a", "/etc/passwd", "/etc/group", Path(sys.argv[1]) / "etc"], check=True)
    subprocess.run(["mount", "--bind", Path(sys.argv[1]) / "etc", "/etc"], check=True)
    file = Path(sys.argv[1]) / "file"
    file.touch()
    os.chown(file, 54321, 54321)
    for name in ("passwd", "group"):
        same(files.File, path=str(file))
        whole = Path("/etc", name).read_bytes()
        PendingFiles().put(f"/etc/{name}", whole + b"put:x:54321:54321::/:/bin/sh\\n")
        same(files.File, path=str(file))
        Path("/etc", name).write_bytes(whole + b"own:x:54321:54321::/:/bin/sh\\n")
        print(known.answer_to(files.File)(path=str(file))["user" if name == "passwd" else "group"])
        same(files.File, path=str(file))
""",
        tmp_path,
    )
    told = "answered 7"
    assert said == [told, told, "own", told] * 2


def test_packages_of_all_states_are_told_as_dpkg_tells_them(tmp_path: Path) -> None:
    """Held, half installed, to be reinstalled, of several architectures; and one of which dpkg -l writes more than is understood."""
    said = in_a_namespace(
        """
    def stanza(name, status, version, more="", architecture="amd64"):
        return f"Package: {name}\\nStatus: {status}\\nPriority: optional\\nMaintainer: m\\nArchitecture: {architecture}\\n{more}Version: {version}\\nDescription: d\\n Status: install ok installed\\n .\\n more\\n\\n"
    usual = (
        stanza("a", "install ok installed", "1:2.3~rc1-4+b1") + stanza("b", "hold ok installed", "1")
        + stanza("c", "deinstall ok config-files", "2") + stanza("d", "install reinstreq installed", "1")
        + stanza("e", "install ok half-installed", "1") + stanza("f", "install ok unpacked", "1")
        + stanza("g", "install ok installed", "1", "Multi-Arch: same\\n") + stanza("g", "install ok installed", "2", "Multi-Arch: same\\n", "i386")
        + stanza("h", "install ok triggers-pending", "1", "Triggers-Pending: x\\n") + stanza("i", "deinstall ok installed", "1")
    )
    over("/var/lib/dpkg/status", usual.encode())
    same(deb.DebPackages)
    over("/var/lib/dpkg/status", (usual + stanza("k", "install ok installed", "1", "Multi-Arch: same\\n", "musl-linux-amd64")).encode())
    same(deb.DebPackages)
    over("/var/lib/dpkg/status", b"")
    same(deb.DebPackages)
""",
        tmp_path,
    )
    assert said == ["answered 3", "unknown", "answered 0"]
