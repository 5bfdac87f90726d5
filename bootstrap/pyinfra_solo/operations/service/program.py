"""Check and run a service, and note what it was started with.

service baseline|check|apply name=NAME records=FOLDER enabled:=BOOL running:=BOOL restart:=[PATH, ...]
    reload:=[PATH, ...] force=no|restart|reload

restart, reload: the paths of which a restart, or a reload, makes the service read the new contents.
force: what an operation asks for by its change. The record of a service, a file in `records`, holds
a digest of these paths. It belongs on tmpfs: it is gone with the processes that it describes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyinfra_solo.clients.service_log import last_words, log_place
from pyinfra_solo.operations.prelude import ProgramError, capture, main, query, report, require, run, write

SYSTEMD = Path("/run/systemd/system")
JOBS = Path("/etc/init")
"""Of Upstart; a package's service may have an LSB script alone."""
_PROPERTIES = (
    "LoadState,UnitFileState,ActiveState,NeedDaemonReload,Result,ConditionResult,ConditionTimestampMonotonic"
)


def baseline(name: str, records: str, restart: Sequence[str], reload: Sequence[str], **_rest: Any) -> str:
    """Name the init system; and note what is on disk as what the service has read, when nothing is noted.

    It is called before anything is changed. From then on a difference is a reload that is still due.
    """
    with suppress(OSError):
        _make_private(Path(records))
        if not Path(records, name).is_file():
            _remember(name, records, _digests(restart, reload))
    return _init()


def check(name: str, enabled: bool, **arguments: Any) -> dict[str, Any]:
    """Tell init; enabled, where that is wanted; and verb: none, start, restart or reload."""
    init = _init()
    state = _state(init, name)
    verb, _ = _verb(state, name=name, **arguments)
    return {"init": init, "enabled": state["enabled"] or not enabled, "verb": verb}


def apply(name: str, records: str, enabled: bool, **arguments: Any) -> None:
    """Do what `check` finds, and note what the service has read."""
    init = _init()
    state = _state(init, name)
    verb, digests = _verb(state, name=name, records=records, **arguments)
    if state["reload_daemon"]:
        require("systemctl", "daemon-reload")
    if enabled and not state["enabled"]:
        _enable(init, name)
        report(f"{name}: enabled")
    if verb != "none":
        began = time.time()
        if _act(init, name, verb):
            kind = "sysv" if init == "upstart" and not _has_job(name) else init
            words = last_words(kind, name, began)
            raise ProgramError(
                f"{name}: could not {verb}{': ' * bool(words)}{words}. See its log: {log_place(kind, name)}"
            )
        report(f"{name}: {verb}")
    _remember(name, records, digests)


def _verb(
    state: dict[str, Any], *, name: str, records: str, running: bool, restart: Sequence[str],
    reload: Sequence[str], force: str,
) -> tuple[str, dict[str, str]]:  # fmt: skip
    digests, noted = _digests(restart, reload), _noted(Path(records, name))
    if not running or state["running"] == "declined":
        return "none", digests
    if state["running"] == "no":
        return "start", digests
    for verb in ("restart", "reload"):
        if force == verb or ((restart or reload) and digests[verb] != noted.get(verb)):
            return verb, digests
    return "none", digests


def _init() -> str:
    if SYSTEMD.is_dir():
        return "systemd"
    return "upstart" if "upstart" in query("initctl", "version").text else "sysv"


def _has_job(name: str) -> bool:
    return (JOBS / f"{name}.conf").is_file()


def _state(init: str, name: str) -> dict[str, Any]:
    """Read enabled; running: yes, no or declined; and reload_daemon, for systemd."""
    if init == "systemd":
        return _systemd_state(name)
    if init == "upstart" and _has_job(name):
        is_running = "start/running" in query("initctl", "status", name).text
        return {"enabled": True, "running": "yes" if is_running else "no", "reload_daemon": False}
    return _sysv_state(name)


def _systemd_state(name: str) -> dict[str, Any]:
    shown = query("systemctl", "show", f"--property={_PROPERTIES}", "--", f"{name}.service")
    if shown.status:
        raise ProgramError(
            f"`systemctl show {name}.service` failed with status {shown.status}. Is systemd well?"
        )
    unit = dict(line.split("=", 1) for line in shown.text.splitlines() if "=" in line)
    running = "yes" if unit.get("ActiveState") in ("active", "reloading") else "no"
    # A unit whose Condition says no, as timesyncd's in a container, is down and right. What an ExecCondition
    # declined, as the fence does, may start now.
    is_tried = unit.get("ConditionTimestampMonotonic", "0") not in ("", "0")
    is_tried = is_tried and unit.get("Result") != "exec-condition"
    if unit.get("ActiveState") == "inactive" and unit.get("ConditionResult") == "no" and is_tried:
        running = "declined"
    file = unit.get("UnitFileState", "")
    return {
        "enabled": file not in ("", "disabled") and not file.startswith("masked"),
        "running": running,
        "reload_daemon": unit.get("NeedDaemonReload") == "yes" or unit.get("LoadState") == "not-found",
    }


def _sysv_state(name: str) -> dict[str, Any]:
    """OpenRC runs the same scripts, and keeps its links in /etc/runlevels."""
    links = [*Path("/etc").glob(f"rc[2345].d/S[0-9][0-9]{name}"), *Path("/etc/runlevels").glob(f"*/{name}")]
    is_running = query("service", name, "status").status == 0
    return {
        "enabled": any(link.exists() for link in links),
        "running": "yes" if is_running else "no",
        "reload_daemon": False,
    }


def _enable(init: str, name: str) -> None:
    if init == "systemd":
        require("systemctl", "--quiet", "enable", "--", f"{name}.service")
    else:
        require("update-rc.d", name, "defaults")
        require("update-rc.d", name, "enable")


def _act(init: str, name: str, verb: str) -> int:
    """Start, restart or reload; the exit status."""
    if init == "systemd":
        if verb == "start":
            query("systemctl", "reset-failed", "--", f"{name}.service")
        return run("systemctl", verb, "--", f"{name}.service").status
    if init == "upstart" and _has_job(name):
        # `restart` keeps the job's old definition (Upstart cookbook, 10.1); stop and start read the new.
        verbs = ["stop", "start"] if verb == "restart" else [verb]
        return next((status for each in verbs if (status := run("initctl", each, name).status)), 0)
    done = capture("service", name, verb)  # a daemon that it leaves may keep its output open
    sys.stdout.write(done.text)
    return done.status


def _digests(restart: Sequence[str], reload: Sequence[str]) -> dict[str, str]:
    return {"restart": _digest(restart), "reload": _digest(reload)}


def _digest(paths: Sequence[str]) -> str:
    """Digest contents of files, also of those below folders, targets of links, and what is not there.

    Of what another account may write only size, time and inode count, and nothing below it: it may
    hold files without an end, or folders without number.
    """
    digest = hashlib.sha256()
    for path in paths:
        for line in _lines(Path(path)):
            digest.update(line + b"\0")
    return digest.hexdigest()


def _lines(path: Path) -> Iterator[bytes]:
    name = os.fsencode(path)
    try:
        about = path.lstat()
        mode = about.st_mode
        if stat.S_ISLNK(mode):
            yield name + b" -> " + os.fsencode(path.readlink())
        elif about.st_uid not in (0, os.geteuid()) or mode & 0o022:
            yield name + f" {mode} {about.st_size} {about.st_mtime_ns} {about.st_ino}".encode()
        elif stat.S_ISREG(mode):
            yield name + b" " + _contents(path)
        elif stat.S_ISDIR(mode):
            for below in sorted(path.iterdir()):
                yield from _lines(below)
        else:
            yield name + b" is no file"
    except OSError as error:
        yield name + b": " + os.strerror(error.errno or 0).encode()


def _contents(path: Path) -> bytes:
    digest = hashlib.sha256()
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _noted(record: Path) -> dict[str, str]:
    try:
        noted = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _remember(name: str, records: str, digests: dict[str, str]) -> None:
    _make_private(Path(records))
    write(Path(records, name), json.dumps(digests) + "\n", 0o600, f".{os.getpid()}.new")


def _make_private(records: Path) -> None:
    """Make the folder, for root alone: a short secret can be guessed from its file's digest."""
    records.parent.mkdir(parents=True, exist_ok=True)
    records.mkdir(mode=0o700, exist_ok=True)
    records.chmod(0o700)
    for record in records.iterdir():
        with suppress(FileNotFoundError):  # another program's new file
            record.chmod(0o600)


if __name__ == "__main__":
    main(baseline=baseline, check=check, apply=apply)
