"""The looks of our own operations, as their shell programs (operations/scripts) make them on other machines."""

import grp
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pyinfra_solo.native import UNKNOWN, programs
from pyinfra_solo.native.server import find_program

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing_packages(packages: Sequence[str]) -> Any:
    """As `packages.sh look`, from dpkg's database (dpkg(1), FILES)."""
    if any(Path("/var/lib/dpkg/updates").iterdir()) or not all(map(_PACKAGE.fullmatch, packages)):
        return UNKNOWN
    database = b"\n\n" + Path("/var/lib/dpkg/status").read_bytes()
    if _POLICY.is_file() and b"\n# pyinfra-solo" in b"\n" + _POLICY.read_bytes():
        return UNKNOWN  # a fence: of a run that is at work, or was killed
    missing = []
    for name in packages:
        stanzas = list(_stanzas(database, name))
        if len(stanzas) > 1:  # one for each architecture
            return UNKNOWN
        if not stanzas or not _INSTALLED.search(stanzas[0]):
            missing.append(name)
    return missing


_INSTALLED = re.compile(rb"^Status: (install|hold) \S+ installed$", re.MULTILINE)


def _stanzas(database: bytes, name: str) -> Iterator[bytes]:
    head, at = f"\n\nPackage: {name}\n".encode(), 0
    while (at := database.find(head, at)) >= 0:
        end = database.find(b"\n\n", at + 2)
        yield database[at : end if end >= 0 else None]
        at += len(head)


def account_gaps(words: Sequence[str]) -> Any:
    """As `account.sh look`."""
    name, home, shell, system, groups, keys = words
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return ["account"]
    torn = _torn(account)
    right = keys == "-" or _keys_right(account, home, keys)
    if torn is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    member = {grp.getgrgid(gid).gr_name for gid in os.getgrouplist(name, account.pw_gid)}
    gaps = ["half"] if torn else []
    if account.pw_shell != shell:
        gaps.append("shell")
    if not member.issuperset(filter(None, groups.split(","))):
        gaps.append("groups")
    if system != "yes" and not Path(home).is_dir():
        gaps.append("home")
    return gaps if right else [*gaps, "keys"]


def _torn(account: pwd.struct_passwd) -> Any:
    """Whether useradd(8) was killed between its files. UNKNOWN of an account of a directory service."""
    if account.pw_name not in _names("/etc/passwd"):
        return UNKNOWN
    try:
        group = grp.getgrgid(account.pw_gid).gr_name
    except KeyError:
        return True
    shadowless = os.path.exists("/etc/shadow") and account.pw_name not in _names("/etc/shadow")
    groupless = group in _names("/etc/group") and (
        os.path.exists("/etc/gshadow") and group not in _names("/etc/gshadow")
    )
    return shadowless or groupless


def _names(path: str) -> set[str]:
    text = Path(path).read_bytes().decode(errors="replace")
    return {line.partition(":")[0] for line in text.splitlines() if ":" in line}


def _keys_right(account: pwd.struct_passwd, home: str, keys: str) -> Any:
    """UNKNOWN where a link leads away, or what is there is not simply the account's own: the shell program
    reads it as the account."""
    folder, path = f"{home}/.ssh", f"{home}/.ssh/authorized_keys"
    readable = {
        home: stat.S_IFDIR | stat.S_IXUSR,
        folder: stat.S_IFDIR | stat.S_IXUSR,
        path: stat.S_IFREG | stat.S_IRUSR,
    }
    for one, wanted in readable.items():
        try:
            about = os.lstat(one)
        except FileNotFoundError:
            return not keys
        if about.st_uid != account.pw_uid or about.st_mode & wanted != wanted or stat.S_ISLNK(about.st_mode):
            return UNKNOWN
    # `$(...)` takes the newlines at the end away.
    return Path(path).read_bytes().rstrip(b"\n") == keys.encode()


def baseline(words: Sequence[str]) -> Any:
    """As `service.sh baseline`, once it is noted what the service has read."""
    name, records, *_rest = words
    noted = Path(records, name).is_file()
    return "systemd" if noted and Path("/run/systemd/system").is_dir() else UNKNOWN


def service_state(words: Sequence[str]) -> Any:
    """As `service.sh look`, under systemd."""
    name, records, want_enabled, want_running, force, *paths = words
    if not Path("/run/systemd/system").is_dir():
        return UNKNOWN
    shown = _shown(f"{name}.service")
    running = _running(shown)
    verb = "none"
    if paths or force != "no":
        old_restart, old_reload = _noted(Path(records, name))
        if _digest("reload", paths) != old_reload or force == "reload":
            verb = "reload"
        if _digest("restart", paths) != old_restart or force == "restart":
            verb = "restart"
    if running == "no":
        verb = "start"
    if running == "declined" or want_running != "yes":
        verb = "none"
    is_enabled = not re.fullmatch(r"|disabled|masked.*", shown["UnitFileState"])
    return {
        "init": "systemd",
        "enabled": "yes" if is_enabled or want_enabled != "yes" else "no",
        "verb": verb,
    }


def _shown(unit: str) -> dict[str, str]:
    """systemctl(1), show. Raises OSError, CalledProcessError and the like."""
    properties = "UnitFileState,ActiveState,ConditionResult,ConditionTimestampMonotonic"
    shown = programs.stdout_of(
        [find_program("systemctl") or "systemctl", "show", f"--property={properties}", "--", unit]
    )
    return dict(line.split("=", 1) for line in shown.decode().splitlines())


def _running(shown: dict[str, str]) -> str:
    """A unit whose Condition says no, as timesyncd's in a container, is down and right."""
    active = shown["ActiveState"]
    tried = shown.get("ConditionTimestampMonotonic", "0") not in ("", "0")
    if active == "inactive" and shown.get("ConditionResult") == "no" and tried:
        return "declined"
    return "yes" if active in ("active", "reloading") else "no"


def _noted(record: Path) -> tuple[str, str]:
    """As the program's two `read`s: what has no newline after it does not count."""
    try:
        lines = record.read_text().split("\n")[:-1]
    except FileNotFoundError:
        lines = []
    restart, reload, *_rest = *lines, "", ""
    return restart, reload


def _digest(kind: str, words: Sequence[str]) -> str:
    """service.sh's digest of all paths of a kind, whose record both write and read. Raises ValueError for
    a name that sha256sum(1) would escape."""
    text = b"".join(
        line + b"\n"
        for word in words
        if word.startswith(f"{kind}=")
        for line in _lines(word.partition("=")[2])
    )
    return hashlib.sha256(text).hexdigest()


def _lines(path: str) -> list[bytes]:
    name = os.fsencode(path)
    if name.endswith(b"/"):
        raise ValueError(path)
    if Path(path).is_symlink():
        return [name + b" -> " + os.readlink(name)]
    if Path(path).is_dir():
        files, links = _below(name)
        # sort(1) -k 2 in the C locale: by the blank and the name, then by the whole line.
        summed = sorted((_summed(file) for file in files), key=lambda line: (line[64:], line))
        return [*summed, *sorted(os.readlink(link) for link in links)]
    if Path(path).is_file():
        return [_summed(name)]
    return [name + b" is not there"]


def _below(folder: bytes) -> tuple[list[bytes], list[bytes]]:
    files, links = [], []
    for where, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = where + b"/" + name
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                links.append(path)
            elif stat.S_ISREG(mode):
                files.append(path)
    return files, links


def _summed(path: bytes) -> bytes:
    if b"\\" in path or b"\n" in path or b"\r" in path:
        raise ValueError(path)
    return hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest().encode() + b"  " + path
