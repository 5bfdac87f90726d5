"""What is installed, by dpkg's own database; and an install around the real apt-get, which the lab runs.

The programs of apt and dpkg are the test's own here, first on PATH.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.operations import packages
from pyinfra_solo.operations.packages import program
from tests.operations.conftest import Ask
from tests.support.machine import ENGINE
from tests.support.programs import run as run_command
from tests.support.programs import wait_for

STANZA = "Package: {}\nStatus: {}\nVersion: 1\nArchitecture: {}\n"


def missing(ask: Ask, *names: str) -> list[str]:
    """The packages of `names` that are missing."""
    return [name for name in checked(ask, Path("/nonexistent"), *names) if name in names]


def checked(ask: Ask, audited: Path, *names: str) -> list[str]:
    found: list[str] = ask(packages.PROGRAM, "check", packages=list(names), audited=str(audited))
    return found


def test_each_package_of_this_machine_is_as_dpkg_says(ask: Ask) -> None:
    listed = run_command(["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\n"]).stdout
    states = {name: state for state, name in map(str.split, listed.splitlines())}
    assert missing(ask, *states) == [name for name in states if states[name] not in ("ii", "hi")]


@pytest.mark.parametrize("name", ["no-such-package", "dpk", "coreutil", "-x", "a b", "no-such*", ""])
def test_a_name_that_dpkg_does_not_have_is_missing(ask: Ask, name: str) -> None:
    assert missing(ask, "dpkg", name, "tar") == [name]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dpkg's status file, for dpkg-query too."""
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path))
    (tmp_path / "updates").mkdir()
    return tmp_path / "status"


@pytest.mark.parametrize(
    ("status", "is_installed"),
    [
        ("install ok installed", True), ("hold ok installed", True), ("install reinstreq installed", True),
        ("deinstall ok installed", False), ("deinstall ok config-files", False),
        ("install ok half-configured", False), ("install ok unpacked", False),
    ],
)  # fmt: skip
def test_a_package_is_installed_when_it_is_wanted_and_configured(
    ask: Ask, database: Path, status: str, is_installed: bool
) -> None:
    database.write_text(STANZA.format("alpha", status, "all"))
    assert missing(ask, "alpha") == ([] if is_installed else ["alpha"])


@pytest.fixture
def audited(database: Path) -> Path:
    """The note of a database in which alpha is well."""
    (database.parent / "info").mkdir()
    for name in ("alpha.list", "alpha.md5sums", "format"):
        (database.parent / "info" / name).write_text("1\n" if name == "format" else "")
    database.write_text(STANZA.format("alpha", "install ok installed", "all"))
    return database.parent / "run/audited"


@pytest.mark.parametrize(
    "status", ["install ok half-configured", "install ok unpacked", "install reinstreq installed"]
)
def test_a_package_that_is_half_done_is_work_whoever_wants_it(
    ask: Ask, database: Path, audited: Path, status: str
) -> None:
    """A killed apt leaves such packages; the role's own may all be installed."""
    assert checked(ask, audited) == []
    at = audited.stat().st_ino
    assert checked(ask, audited) == []
    assert audited.stat().st_ino == at, "dpkg was not asked"
    database.write_text(STANZA.format("alpha", status, "all"))
    assert checked(ask, audited) == [program.AUDIT]
    assert checked(ask, audited) == [program.AUDIT]


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold a lock as apt does, in a process whose pid is yielded."""
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"
    words = [sys.executable, "-c", hold, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.communicate(b"\n")


def test_a_half_done_package_that_another_apt_is_at_is_its_own_affair(
    database: Path, audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.write_text(STANZA.format("alpha", "install ok unpacked", "all"))
    lock = tmp_path / "lock"
    monkeypatch.setattr(program, "LOCKS", (str(lock),))
    with locked(lock):
        assert program.check([], str(audited)) == []
    assert program.check([], str(audited)) == [program.AUDIT]


def test_of_two_architectures_dpkg_says_which_counts(ask: Ask, database: Path) -> None:
    removed = STANZA.format("libc6", "deinstall ok config-files", "amd64")
    installed = STANZA.format("libc6", "install ok installed", "i386")
    database.write_text(f"{removed}\n{installed}")
    assert missing(ask, "libc6") == ["libc6"]


def test_updates_that_are_not_in_the_database_yet_count(ask: Ask, database: Path) -> None:
    """dpkg writes each state there first (dpkg(1), FILES)."""
    database.write_text(STANZA.format("alpha", "install ok unpacked", "all"))
    (database.parent / "updates/0000").write_text(STANZA.format("alpha", "install ok installed", "all"))
    assert missing(ask, "alpha") == []


def test_who_holds_a_lock_is_named_and_who_has_it_open_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    monkeypatch.setattr(program, "LOCKS", (str(lock),))
    with lock.open("w"):
        assert program.holders() == []
    with locked(lock) as pid:
        (holder,) = program.holders()
        lock.unlink()  # what a container's apt shows: the same path, another file
        lock.touch()
        assert program.holders() == []
    assert "python" in holder
    assert holder.endswith(f" (pid {pid})")


def test_holders_are_found_without_a_walk_through_processes() -> None:
    """Any account can have thousands of processes, each with thousands of descriptors."""
    text = """
import sys
walked = []
sys.addaudithook(lambda event, words: event in ("os.listdir", "os.scandir") and walked.append(str(words[0])))
from pyinfra_solo.operations.packages import program
program.holders()
print([path for path in walked if path.startswith("/proc")])
"""
    environment = {**os.environ, "PYTHONPATH": str(ENGINE)}
    done = subprocess.run(
        [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


_APPLY = """
import sys
from pathlib import Path
from pyinfra_solo.operations import prelude
from pyinfra_solo.operations.packages import program

folder = Path(sys.argv[1])
program.POLICY, program.LISTS, program.SOURCES = folder / "policy", folder / "lists", (folder / "sources",)
program.LOCKS = (str(folder / "lock"),)
prelude._IS_COMMAND = True
sys.argv[1:] = sys.argv[2:]
prelude.main(check=program.check, apply=program.apply)
"""
_FAKE = """#!/bin/sh
echo "${0##*/} $*" >>FOLDER/calls
[ "$DEBIAN_FRONTEND" = noninteractive ] || [ "${0##*/}" != apt-get ] || exit 9
case "${0##*/} $*" in
    'dpkg --audit') cat FOLDER/audit 2>/dev/null ;;
    'dpkg --configure '*) . FOLDER/configure ;;
    'apt-get '*' update '*) . FOLDER/update ;;
    'apt-get '*' install '*) . FOLDER/install ;;
    'apt-cache '*) . FOLDER/known ;;
esac
"""
UNFETCHED = """\
E: Failed to fetch http://me:hunter2@mirror.lab/pool/libalpha2_2.0-1_amd64.deb  404  Not Found [IP: 10.0.0.1 80]
E: Failed to fetch http://mirror.lab/pool/alpha_1.0_all.deb  404  Not Found [IP: 10.0.0.1 80]
E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?
"""
AUDIT_OUTPUT = """\
The following packages are only half configured, probably due to problems
configuring them the first time.  The configuration should be retried using
dpkg --configure <package> or the configure menu option in dselect:
 beta                 a package
 gamma:i386           another

The following packages are missing the md5sums control file in the
database, they need to be reinstalled:
 beta                 a package
"""


@dataclass
class Apt:
    """A machine's apt, whose parts are shell texts in files of these names."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        for name in ("apt-get", "apt-cache", "dpkg", "dpkg-query"):
            fake = self.folder / "bin" / name
            fake.write_text(_FAKE.replace("FOLDER", str(self.folder)))
            fake.chmod(0o755)
        (self.folder / "lists").mkdir()
        (self.folder / "lists/a_Packages").touch()
        self.set(update="true", install="true", known="true", configure="true")

    def set(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / name).write_text(text)

    def start(self, verb: str, **arguments: Any) -> subprocess.Popen[str]:
        words = packages.PROGRAM.command(verb, arguments).bits[5:]
        return subprocess.Popen(
            [sys.executable, "-c", _APPLY, str(self.folder), *(str(word.obj) for word in words)],
            env={**os.environ, "PYTHONPATH": str(ENGINE), "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                 "DPKG_ADMINDIR": str(self.folder)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def apply(self, *names: str, lock_timeout: int = 20, lists_age: int = 3600) -> tuple[int, str, str]:
        """Exit status, stdout and stderr."""
        child = self.start("apply", lock_timeout=lock_timeout, lists_age=lists_age, packages=list(names))
        out, err = child.communicate(timeout=60)
        return child.returncode, out, err

    def calls(self) -> list[str]:
        """The verbs of apt-get and dpkg since the last call."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        verbs = [word for line in lines for word in line.split() if word in ("update", "install", "--configure", "show")]  # fmt: skip
        assert all("--force-confold" in line for line in lines if "install" in line)
        return verbs

    @property
    def policy(self) -> Path:
        return self.folder / "policy"


@pytest.fixture
def apt(tmp_path: Path) -> Apt:
    return Apt(tmp_path)


def test_recent_lists_are_not_updated(apt: Apt) -> None:
    assert apt.apply("alpha") == (0, "", "")
    assert apt.calls() == ["install"]
    assert not apt.policy.exists()


@pytest.mark.parametrize("age", [7200, -7200])
def test_lists_of_another_time_are_updated_and_then_recent(apt: Apt, age: int) -> None:
    at = time.time() - age
    os.utime(apt.folder / "lists", (at, at))
    assert apt.apply("alpha")[0] == 0
    assert apt.calls() == ["update", "install"]
    apt.apply("alpha")
    assert apt.calls() == ["install"]


def test_lists_older_than_a_source_are_updated(apt: Apt) -> None:
    at = time.time() - 60
    os.utime(apt.folder / "lists", (at, at))
    (apt.folder / "sources").mkdir()
    apt.apply("alpha")
    assert apt.calls() == ["update", "install"]


def test_an_update_that_fails_is_tried_by_the_next_run_too(apt: Apt) -> None:
    at = time.time() - 7200
    os.utime(apt.folder / "lists", (at, at))
    apt.set(update=f"touch {apt.folder}/lists; echo one; echo two; echo three; echo four >&2; exit 100")
    code, out, _ = apt.apply("alpha")
    last = "apt's lists could not be updated: those that are there are used"
    assert (code, out) == (0, f"two\nthree\nfour\n{last}\n")
    assert (apt.folder / "lists").stat().st_mtime == pytest.approx(at, abs=1)


def test_an_install_that_fails_is_repeated_after_an_update(apt: Apt) -> None:
    apt.set(install=f"[ -e {apt.folder}/new ]", update=f"touch {apt.folder}/new")
    assert apt.apply("alpha")[0] == 0
    assert apt.calls() == ["install", "update", "install"]


def test_a_package_that_apt_does_not_know_is_named(apt: Apt) -> None:
    apt.set(install="exit 100", known='[ "$2" = alpha ]')
    code, _, err = apt.apply("alpha", "beta")
    assert code == 1
    assert err.startswith("apt knows no package beta. Correct its name")
    assert not apt.policy.exists()


def test_a_package_that_cannot_be_fetched_is_named_with_its_url(apt: Apt) -> None:
    apt.set(install="cat >&2 <<'END'\n" + UNFETCHED + "END\nexit 100")
    code, _, err = apt.apply("alpha")
    assert code == 1
    assert err.startswith(UNFETCHED.replace("me:hunter2@", ""))
    assert err.splitlines()[-1] == (
        "apt could not fetch libalpha2: http://mirror.lab/pool/libalpha2_2.0-1_amd64.deb: 404 Not Found "
        "[IP: 10.0.0.1 80]. So it is with 1 more. Check the mirror in /etc/apt and the network."
    )


def test_what_dpkg_left_is_configured_first(apt: Apt) -> None:
    apt.set(audit="half-configured", configure=f"rm {apt.folder}/audit")
    assert apt.apply("alpha")[0] == 0
    assert apt.calls() == ["--configure", "install"]


def test_what_cannot_be_configured_is_repaired_by_apt(apt: Apt) -> None:
    apt.set(audit=AUDIT_OUTPUT, install=f"rm -f {apt.folder}/audit")
    assert apt.apply()[0] == 0
    assert (apt.folder / "calls").read_text().splitlines()[-2].endswith(" beta gamma:i386")
    assert apt.calls() == ["--configure", "install"]


def test_a_package_that_stays_half_done_is_a_failure_with_its_name(apt: Apt) -> None:
    apt.set(install=f"cp {apt.folder}/found {apt.folder}/audit", found=AUDIT_OUTPUT)
    code, out, err = apt.apply("alpha")
    assert code == 1
    assert out == AUDIT_OUTPUT
    assert err == (
        "dpkg --audit finds packages that are not installed well: beta, gamma:i386. Repair them, e.g. by "
        "`apt-get install --reinstall`, or bake a new image.\n"
    )
    assert not apt.policy.exists()


def test_a_lock_is_waited_for_and_then_given_up(apt: Apt) -> None:
    with (apt.folder / "lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        code, _, err = apt.apply("alpha", lock_timeout=1)
    first, last = err.splitlines()
    assert code == 1
    assert first.startswith("dpkg's lock is held by ")
    assert first.endswith(f" (pid {os.getpid()}): waiting for 1 s at most")
    assert last == f"Gave up after 1 s: {first.partition(': ')[0]}. Let it end, or end it, and run again."
    assert apt.calls() == []


def test_the_fence_denies_until_apt_has_ended_also_after_a_signal(apt: Apt) -> None:
    apt.set(install=f"touch {apt.folder}/began; while [ ! -e {apt.folder}/end ]; do sleep 0.1; done")
    child = apt.start("apply", lock_timeout=20, lists_age=3600, packages=["alpha"])
    wait_for("the install", (apt.folder / "began").exists, 20)
    assert subprocess.run([apt.policy], check=False).returncode == 101
    child.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert apt.policy.exists()
    (apt.folder / "end").touch()
    child.communicate(timeout=20)
    assert child.returncode == 128 + signal.SIGTERM
    assert not apt.policy.exists()


def test_the_fence_of_a_killed_run_lets_through_and_counts_as_a_gap(apt: Apt) -> None:
    apt.set(install=f"touch {apt.folder}/began; sleep 5")
    child = apt.start("apply", lock_timeout=20, lists_age=3600, packages=["alpha"])
    wait_for("the install", (apt.folder / "began").exists, 20)
    assert apt.start("check", packages=[], audited="/nonexistent").communicate(timeout=20)[0] == "[]\n"
    child.kill()
    child.communicate(timeout=20)
    assert subprocess.run([apt.policy], check=False).returncode == 0
    assert (
        apt.start("check", packages=[], audited="/nonexistent").communicate(timeout=20)[0]
        == f'["{apt.policy}"]\n'
    )
    assert apt.apply()[0] == 0
    assert not apt.policy.exists()


def test_an_operators_own_policy_is_left_alone(apt: Apt) -> None:
    apt.policy.write_text("#!/bin/sh\nexit 0\n")
    apt.policy.chmod(0o755)
    assert apt.apply("alpha")[0] == 0
    assert apt.policy.read_text() == "#!/bin/sh\nexit 0\n"
