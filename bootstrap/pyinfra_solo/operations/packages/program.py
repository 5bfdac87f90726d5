"""Check and install Debian packages; what they bring does not start until it is configured.

packages check packages:=[NAME, ...]
packages holders
packages apply lock_timeout:=SECONDS lists_age:=SECONDS packages:=[NAME, ...]
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyinfra_solo.operations.prelude import (
    Finished,
    ProgramError,
    capture,
    main,
    query,
    report,
    require,
    run,
    write,
)

POLICY = Path("/usr/sbin/policy-rc.d")
LISTS = Path("/var/lib/apt/lists")
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", f"{LISTS}/lock", "/var/cache/apt/archives/lock")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_INSTALLED = re.compile(rb"^Status: (install|hold) \S+ installed$", re.MULTILINE)
_KEEP = ("--force-confdef", "--force-confold")
_UNATTENDED = {"DEBIAN_FRONTEND": "noninteractive"}
_FENCE = """\
#!/bin/sh
# pyinfra-solo: what is being installed starts after it is configured.
[ "$(cut -d ' ' -f 22 /proc/{pid}/stat 2>/dev/null)" = {born} ] && exit 101
exit 0
"""
"""Denies only while the process that wrote it lives (deb-systemd-invoke(1p), policy-rc.d)."""


def check(packages: Sequence[str]) -> list[str]:
    """List the packages that are not installed; and POLICY, when a run that was killed has left it."""
    missing = _missing(packages)
    if _is_fence() and query(str(POLICY)).status == 0:
        missing.append(str(POLICY))
    return missing


def holders() -> list[str]:
    """List who holds one of LOCKS, as `command (pid 812)` (proc(5), fdinfo)."""
    return [f"{_command(pid) or 'a process that has just ended'} (pid {pid})" for pid in _holding()]


def apply(lock_timeout: int, lists_age: int, packages: Sequence[str]) -> None:
    """Install what is missing, behind the fence. Ends with status 1 and the reason when it cannot."""
    Installation(lock_timeout, lists_age).install(packages)


def _missing(packages: Sequence[str]) -> list[str]:
    database = _database()
    return [name for name in packages if not _is_installed(name, database)]


def _database() -> bytes | None:
    """Read dpkg's database (dpkg(1), FILES). None while it has updates that are not in it yet."""
    folder = Path(os.environ.get("DPKG_ADMINDIR", "/var/lib/dpkg"))
    try:
        if any((folder / "updates").iterdir()):
            return None
        return b"\n\n" + (folder / "status").read_bytes()
    except OSError:
        return None


def _is_installed(name: str, database: bytes | None) -> bool:
    """Ask the database, or dpkg-query where that does not decide: several architectures, a pattern."""
    if database is not None and _NAME.fullmatch(name):
        stanzas = list(_stanzas(database, name))
        if len(stanzas) < 2:
            return bool(stanzas and _INSTALLED.search(stanzas[0]))
    return bool(re.match("[ih]i", query("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name).text))


def _stanzas(database: bytes, name: str) -> Iterator[bytes]:
    head, at = f"\n\nPackage: {name}\n".encode(), 0
    while (at := database.find(head, at)) >= 0:
        end = database.find(b"\n\n", at + 2)
        yield database[at : end if end >= 0 else None]
        at += len(head)


def _is_fence() -> bool:
    return POLICY.is_file() and b"\n# pyinfra-solo" in b"\n" + POLICY.read_bytes()


def _put_fence() -> None:
    """Put the fence, unless an operator's own policy is there."""
    if (POLICY.exists() or POLICY.is_symlink()) and not _is_fence():
        return
    pid = os.getpid()
    born = Path(f"/proc/{pid}/stat").read_text().split(" ")[21]
    write(POLICY, _FENCE.format(pid=pid, born=born), 0o755)


def _remove_fence() -> None:
    if _is_fence():
        POLICY.unlink()


def _holding() -> list[int]:
    """Find the processes by their links alone: stat(2) of what others have open may hang."""
    found = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            links = list((process / "fd").iterdir())
        except OSError:
            continue
        if any(_is_lock(link, process) for link in links):
            found.add(int(process.name))
    return sorted(found)


def _is_lock(link: Path, process: Path) -> bool:
    """Test for a held lock. A container's apt shows the same path, and has another file."""
    try:
        target = str(link.readlink())
        if target not in LOCKS or not link.samefile(target):
            return False
        held = (process / "fdinfo" / link.name).read_text()
    except OSError:
        return False
    return re.search(rf"^lock:.* {process.name} ", held, re.MULTILINE) is not None


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return "".join(chr(byte) if 32 <= byte < 127 else " " for byte in words[:100]).rstrip()


class Installation:
    """One `apt-get install`: who holds a lock is waited for, and lists that are too old are updated."""

    def __init__(self, lock_timeout: int, lists_age: int) -> None:
        self._timeout, self._lists_age = lock_timeout, lists_age
        self._until = time.monotonic() + lock_timeout
        self._updated = False
        self._signals: list[int] = []

    def install(self, packages: Sequence[str]) -> None:
        """Wait for locks before the fence, which would keep down what another's upgrade restarts."""
        self._wait_for_locks()
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        try:
            _put_fence()
            if query("dpkg", "--audit").text:
                require("dpkg", "--configure", "--pending", *_KEEP, **_UNATTENDED)
            self._end_if_asked()
            if missing := _missing(packages):
                self._install_missing(missing)
        finally:
            _remove_fence()

    def _install_missing(self, missing: list[str]) -> None:
        if not self._is_fresh() and not self._update():
            report("apt's lists could not be updated: those that are there are used")
        if self._get("install", *missing).status == 0:
            return
        # Recent lists may name what the mirror has dropped since.
        if not self._updated and self._update() and self._get("install", *missing).status == 0:
            return
        self._explain(missing)
        sys.exit(1)

    def _end_if_asked(self) -> None:
        """End by a signal that came in, now that no child is at work behind the fence."""
        if self._signals:
            sys.exit(128 + self._signals[0])

    def _left(self) -> int:
        return max(0, math.ceil(self._until - time.monotonic()))

    def _wait_for_locks(self) -> None:
        is_reported = False
        while held := ", ".join(holders()):
            if not self._left():
                self._give_up(f"dpkg's lock is held by {held}")
            if not is_reported:
                sys.stderr.write(f"dpkg's lock is held by {held}: waiting for {self._left()} s at most\n")
                sys.stderr.flush()
                is_reported = True
            time.sleep(1)
            self._end_if_asked()

    def _give_up(self, reason: str) -> None:
        raise ProgramError(
            f"Gave up after {self._timeout} s: {reason}. Let it end, or end it, and run again."
        )

    def _get(self, *words: str, is_captured: bool = False) -> Finished:
        options = ["--quiet", "--yes", "--no-install-recommends", "-o", f"DPkg::Lock::Timeout={self._left()}"]
        options += [word for option in _KEEP for word in ("-o", f"Dpkg::Options::={option}")]
        call = capture if is_captured else run
        finished = call("apt-get", *options, *words, **_UNATTENDED)
        self._end_if_asked()
        return finished

    def _is_fresh(self) -> bool:
        """Compare the lists' age. A time to come is a wrong clock's; a newer source has no list yet."""
        if not any(LISTS.glob("*_Packages*")):
            return False
        updated = LISTS.stat().st_mtime_ns
        if not 0 <= time.time() - updated / 1e9 < self._lists_age:
            return False
        return not any(path.lstat().st_mtime_ns > updated for path in _sources())

    def _update(self) -> bool:
        """Update the lists; their time is that of the last update that went well.

        apt leaves it when nothing is new, and changes it when an update fails. DPkg::Lock::Timeout
        does not hold for the lists' lock (apt.conf(5)). Without Error-Mode a mirror that does not
        answer is a success.
        """
        before = LISTS.stat().st_mtime_ns if LISTS.exists() else None
        while (done := self._get("update", "-o", "APT::Update::Error-Mode=any", is_captured=True)).status:
            if "Could not get lock" not in done.text:
                if before is not None:
                    os.utime(LISTS, ns=(before, before))
                report("\n".join(done.text.splitlines()[-3:]))
                return False
            self._wait_for_locks()
            if not self._left():
                self._give_up("the lock of apt's lists is held by a process that is not seen here")
            time.sleep(1)
        os.utime(LISTS)
        self._updated = True
        return True

    def _explain(self, packages: Sequence[str]) -> None:
        if not self._left():
            self._wait_for_locks()
        for name in packages:
            if query("apt-cache", "show", name).status:
                sys.stderr.write(
                    f"apt knows no package {name}. Correct its name, or, when an operation before its own"
                    " adds the source, give its packages.installed() alone=True.\n"
                )


def _sources() -> Iterator[Path]:
    for path in SOURCES:
        if path.exists():
            yield path
            yield from path.rglob("*")


if __name__ == "__main__":
    main(check=check, holders=holders, apply=apply)
