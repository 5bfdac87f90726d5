"""Check and install Debian packages; what they bring does not start until it is configured.

packages check packages:=[NAME, ...] audited=FILE
packages holders
packages apply lock_timeout:=SECONDS lists_age:=SECONDS packages:=[NAME, ...]
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyinfra_solo.operations.packages.dpkg import audit, is_well, missing_packages
from pyinfra_solo.operations.prelude import (
    Finished,
    ProgramError,
    capture,
    capture_errors,
    main,
    query,
    report,
    run,
    write,
)

POLICY = Path("/usr/sbin/policy-rc.d")
AUDIT = "dpkg --audit"
"""Stands in a list of packages for those that a killed apt has left half done."""
LISTS = Path("/var/lib/apt/lists")
SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", f"{LISTS}/lock", "/var/cache/apt/archives/lock")
_FLOCK = "hhqqi4x"
"""struct flock: l_type, l_whence, l_start, l_len, l_pid."""
_MAX_AUDIT = 4000
_UNFETCHED = re.compile(r"^E: Failed to fetch (\S+) +(.*)$", re.MULTILINE)
_PASSWORD = re.compile(r"(?<=://)[^/\s]*@")
"""User and password of a source's URL."""
_KEEP = ("--force-confdef", "--force-confold")
_UNATTENDED = {"DEBIAN_FRONTEND": "noninteractive"}
_FENCE = """\
#!/bin/sh
# pyinfra-solo: what is being installed starts after it is configured.
[ "$(cut -d ' ' -f 22 /proc/{pid}/stat 2>/dev/null)" = {born} ] && exit 101
exit 0
"""
"""Denies only while the process that wrote it lives (deb-systemd-invoke(1p), policy-rc.d)."""


def check(packages: Sequence[str], audited: str) -> list[str]:
    """List the packages that are not installed; and what a killed apt or run has left: AUDIT, POLICY.

    audited: notes the state of dpkg's database that was last found well. It belongs on tmpfs.
    """
    missing = missing_packages(packages)
    if not is_well(Path(audited)) and not holders():  # who holds a lock is at work on it
        missing.append(AUDIT)
    if _is_fence() and query(str(POLICY)).status == 0:
        missing.append(str(POLICY))
    return missing


def holders() -> list[str]:
    """List who holds one of LOCKS, as `command (pid 812)`."""
    return [f"{_command(pid) or 'a process that has just ended'} (pid {pid})" for pid in _holding()]


def apply(lock_timeout: int, lists_age: int, packages: Sequence[str]) -> None:
    """Install what is missing, behind the fence. Ends with status 1 and the reason when it cannot."""
    Installation(lock_timeout, lists_age).install(packages)


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
    """Ask the kernel for the holder of each lock: apt and dpkg take POSIX locks (fcntl(2), F_GETLK).

    This process must hold none of them: closing a file gives its locks back. 0 is a process of another
    pid namespace.
    """
    found = set()
    for path in LOCKS:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        finally:
            os.close(descriptor)
        if kind != fcntl.F_UNLCK:
            found.add(pid)
    return sorted(found)


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
            if audit():
                self._repair()
            self._end_if_asked()
            if missing := missing_packages(packages):
                self._install_missing(missing)
            _require_well()
        finally:
            _remove_fence()

    def _repair(self) -> None:
        """Configure what dpkg has unpacked; what it was unpacking comes from the source once more."""
        run("dpkg", "--configure", "--pending", *_KEEP, **_UNATTENDED)
        self._end_if_asked()
        if names := _named_by(audit()):
            self._get("install", "--reinstall", "--no-remove", *names)

    def _install_missing(self, missing: list[str]) -> None:
        if not self._is_fresh() and not self._update():
            report("apt's lists could not be updated: those that are there are used")
        done = self._get("install", *missing)
        # Recent lists may name what the mirror has dropped since.
        if done.status and not self._updated and self._update():
            done = self._get("install", *missing)
        if done.status:
            self._explain(missing, done.text)
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
        call = capture if is_captured else capture_errors
        status, text = call("apt-get", *options, *words, **_UNATTENDED)
        finished = Finished(status, _PASSWORD.sub("", text))
        if not is_captured:
            sys.stderr.write(finished.text)
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

    def _explain(self, packages: Sequence[str], errors: str) -> None:
        """Say in the last line why apt-get failed; it names the package only in lines before that."""
        if not self._left():
            self._wait_for_locks()
        unknown = [name for name in packages if query("apt-cache", "show", name).status]
        for name in unknown:
            sys.stderr.write(
                f"apt knows no package {name}. Correct its name, or, when an operation before its own"
                " adds the source, give its packages.installed() alone=True.\n"
            )
        if not unknown and (failed := _UNFETCHED.findall(errors)):
            raise ProgramError(_not_fetched(failed))
        if not unknown:
            _require_well()


def _not_fetched(failed: Sequence[tuple[str, str]]) -> str:
    """Name the first package that apt could not fetch, its URL, and apt's reason."""
    url, reason = (" ".join(text.split())[:300] for text in failed[0])
    name = url.rpartition("/")[2].partition("_")[0]
    more = f" So it is with {len(failed) - 1} more." if len(failed) > 1 else ""
    return f"apt could not fetch {name}: {url}: {reason.rstrip('.')}.{more} Check the mirror in /etc/apt and the network."


def _require_well() -> None:
    """Raise ProgramError, naming the packages, unless `dpkg --audit` finds nothing wrong."""
    if found := audit():
        report(found.rstrip()[:_MAX_AUDIT])
        names = _named_by(found)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise ProgramError(
            f"dpkg --audit finds packages that are not installed well: {', '.join(names[:10])}{more}. "
            "Repair them, e.g. by `apt-get install --reinstall`, or bake a new image."
        )


def _named_by(found: str) -> list[str]:
    """List the packages that `dpkg --audit` names: a line each, below a sentence for their kind."""
    return list(dict.fromkeys(re.findall(r"^ (\S+)", found, re.MULTILINE)))


def _sources() -> Iterator[Path]:
    for path in SOURCES:
        if path.exists():
            yield path
            yield from path.rglob("*")


if __name__ == "__main__":
    main(check=check, holders=holders, apply=apply)
