"""Station prepare: build the Python environment that a lock file describes, with hashes required.

A runtime is a folder named by its key. It is built beside its place, synced, and renamed, so it is
complete or absent. Standard library only: install.sh runs this module before any dependency exists.
"""

import argparse
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo.clients import lockfile
from pyinfra_solo.clients.uv import Uv
from pyinfra_solo.errors import DataError, DeadlineError, SoloError, SourceError
from pyinfra_solo.system import durable
from pyinfra_solo.system.lock import flock
from pyinfra_solo.system.text import printable

_RECIPE = "1"
"""Part of every key: raise it when a runtime is built differently from here on."""


@dataclass(frozen=True)
class Runtime:
    """A Python environment, complete and on disk.

    key: names what it was made from. python: its interpreter. made: "found" when it existed, "offline"
    when built from local wheels, "index" when the network was used.
    """

    key: str
    python: Path
    made: str


def runtime_key(lock: bytes, python: str) -> str:
    """Return 16 hexadecimal digits for a lock file's content, an interpreter and this architecture.

    The interpreter counts by its resolved name, /usr/bin/python3.11: it changes with the minor
    version, for which a runtime is made, and not with a security update, which runtimes survive.
    """
    parts = (_RECIPE, os.uname().machine, os.path.realpath(python), hashlib.sha256(lock).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def prepare(
    lock: Path,
    *,
    homes: Sequence[Path],
    into: Path,
    uv: Path,
    wheels: Sequence[Path | str],
    index: str | None,
    python: str = "/usr/bin/python3",
    timeout: float,
    keep: int = 2,
    log: Callable[[str], None],
) -> Runtime:
    """Find the runtime for the file `lock` in `homes`, or build it in `into`.

    wheels: folders or URLs. index: instead of uv's default. timeout: seconds for all of it. keep:
    how many runtimes stay in `into`. When one is found, no process is started and nothing is written.
    Raises DataError (the lock), TrustError (a hash), SourceError (no wheel), DeadlineError.
    """
    until = time.monotonic() + timeout
    content = _read(lock)
    key = runtime_key(content, python)
    if found := _find(key, homes):
        return Runtime(key, found, "found")
    log(f"building the runtime: {lockfile.count(content, lock)} packages from {lock.name}")
    with _build_lock(into, until):
        if found := _find(key, [*homes, into]):
            return Runtime(key, found, "found")
        tool = Uv(uv, into.parent / "uv-cache", until, log)
        made = _build(tool, content, into / key, python, wheels, index)
        _prune(into, key, keep, log)
    return Runtime(key, into / key / "bin/python", made)


def _read(lock: Path) -> bytes:
    try:
        return lock.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"There is no {lock.name} in the ops repo. Commit one, made with `uv pip compile --generate-hashes`."
        ) from error
    except OSError as error:
        raise DataError(f"{lock.name} cannot be read: {error.strerror}.") from error


def _find(key: str, homes: Sequence[Path]) -> Path | None:
    """Return the interpreter of the complete runtime `key`, unless its Python was removed."""
    for home in homes:
        python = home / key / "bin/python"
        if durable.is_complete(home / key) and os.access(python, os.X_OK):
            with suppress(OSError):  # the time of last use, for _prune; an image's may be read-only
                os.utime(home / key / durable.MARKER)
            return python
    return None


def _build(
    tool: Uv, content: bytes, target: Path, python: str, wheels: Sequence[Path | str], index: str | None
) -> str:
    durable.remove_unfinished(target.parent)
    # A complete runtime that was not found has an interpreter that was removed.
    durable.invalidate(target)
    building = target.with_name(f"{durable.BUILDING}{target.name}-{os.getpid()}")
    # uv does not sync its cache: after a power cut it may hold empty files, which uv would use.
    if not durable.is_complete(tool.cache):
        durable.discard(tool.cache)
    tool.cache.mkdir(mode=0o755, exist_ok=True)
    durable.invalidate(tool.cache)
    try:
        tool.make_environment(building, python)
        # The bytes that were checked, not the path: a checkout could be written to in between.
        checked = building / "requirements.lock"
        checked.write_bytes(content)
        made = tool.install(building, checked, wheels, index)
        durable.publish(building, target)
        durable.complete(tool.cache)
    except OSError as error:
        raise SourceError(f"The runtime {target} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return made


@contextmanager
def _build_lock(into: Path, until: float) -> Iterator[None]:
    """Hold the lock of `into`; it ends with its process. Raises DeadlineError, SourceError.

    Mode 0600: any open descriptor, even a read-only one, is enough for flock(2) to hold up every build.
    """
    try:
        into.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = os.open(into / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(handle, 0o600)
    except OSError as error:
        raise SourceError(f"Runtimes cannot be built in {into}: {error.strerror}. Run as root.") from error
    try:
        if not flock(handle, until):
            raise DeadlineError(
                f"Another process was still building a runtime in {into} at the time-out. End it, or wait."
            )
        yield
    finally:
        os.close(handle)


def _prune(into: Path, key: str, keep: int, log: Callable[[str], None]) -> None:
    """Remove all but the `keep` last used runtimes, and never one that a process runs from."""
    kept = [path for path in into.iterdir() if re.fullmatch(r"[0-9a-f]{16}", path.name)]
    kept.sort(key=_last_used, reverse=True)
    for path in [path for path in kept if path.name != key][max(0, keep - 1) :]:
        if not _in_use(path):
            durable.discard(path)
            log(f"removed the old runtime {path.name}")


def _last_used(runtime: Path) -> float:
    try:
        return (runtime / durable.MARKER).stat().st_mtime
    except OSError:
        return 0.0


def _in_use(runtime: Path) -> bool:
    """Check whether this process, the baked launcher or a process of this account uses it."""
    launcher = runtime.parent.parent / "runtime"
    if runtime.resolve() in (Path(sys.prefix).resolve(), launcher.resolve()):
        return True
    return any(_runs_from(process, runtime) for process in Path("/proc").glob("[0-9]*"))


def _runs_from(process: Path, runtime: Path) -> bool:
    """Check whether a process of this account was started as the runtime's python (proc(5)).

    Any account may choose words of a command line, also the first one of a setuid program such as su,
    but not what root's python is started with.
    """
    wanted = f"{runtime}/".encode()
    with suppress(OSError):
        if process.stat().st_uid == os.geteuid():
            program = str((process / "exe").readlink()).removesuffix(" (deleted)")
            with (process / "cmdline").open("rb") as words:
                return (
                    program == os.path.realpath(runtime / "bin/python") and words.read(len(wanted)) == wanted
                )
    return False


def main() -> int:
    """Run as a command: the runtime's path on stdout, messages on stderr, the exit status of errors.py."""
    parser = argparse.ArgumentParser(
        prog="prepare",
        description="Print the path of the runtime for a lock file; build it if it does not exist.",
    )
    parser.add_argument("--lock", type=Path, required=True, help="requirements.lock")
    parser.add_argument("--into", type=Path, required=True, help="the folder of runtimes")
    parser.add_argument("--uv", type=Path, required=True, help="the uv to build with")
    parser.add_argument("--wheels", action="append", default=[], help="a folder or URL; may be repeated")
    parser.add_argument("--index", help="a package index, instead of uv's default")
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    options = parser.parse_args()

    def say(text: str) -> None:
        sys.stderr.write(printable(f"prepare: {text}") + "\n")

    began = time.monotonic()
    try:
        runtime = prepare(
            options.lock, homes=[options.into], into=options.into, uv=options.uv, wheels=options.wheels,
            index=options.index, python=options.python, timeout=options.timeout, log=say,
        )  # fmt: skip
    except SoloError as error:
        say(str(error))
        return error.exit_code
    say(f"runtime {runtime.key}, {runtime.made}, {time.monotonic() - began:.1f} s")
    sys.stdout.write(f"{runtime.python.parent.parent}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
