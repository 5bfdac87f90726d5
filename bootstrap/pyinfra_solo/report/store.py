"""Keep reports on disk: reports/<run>.json of each run, and last-run.json of the machine's last one.

The whole file is replaced at every step, so a run that is killed leaves a valid report.
"""

import errno
from contextlib import suppress
from pathlib import Path

import msgspec

from pyinfra_solo import paths
from pyinfra_solo.errors import SoloError, UsageError
from pyinfra_solo.report.records import Report, encode
from pyinfra_solo.system import durable

_LAST = "last-run.json"


class ReportFile:
    """Writes a run's report on the disk; on tmpfs, when the disk is full or read-only.

    Neither stops a run, and its report must be readable all the same.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.problem: str | None = None
        """The reason why the last `write` failed; None when it did not."""
        self.is_last = True
        """True when this run is the machine's last one, which last-run.json shows."""

    def write(self) -> None:
        """Replace the report on disk. A failure is kept in `problem`."""
        text = encode(self.report)
        try:
            (paths.STATE / "reports").mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.write(paths.STATE / "reports" / f"{self.report.run}.json", text, 0o600)
            self.problem = None
            if not self.is_last:
                return
            durable.write(paths.STATE / _LAST, text, 0o600)
            (paths.RUN / _LAST).unlink(missing_ok=True)
        except OSError as error:
            self.problem = f"{paths.STATE}: {errno.errorcode.get(error.errno or 0, '')} {error.strerror}"
            if self.is_last:
                self._write_to_tmpfs(text)

    def _write_to_tmpfs(self, text: bytes) -> None:
        try:
            paths.RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
            durable.write(paths.RUN / _LAST, text, 0o600)
        except OSError as error:
            self.problem = f"{self.problem}; {paths.RUN}: {error.strerror}"

    def prune(self, keep: int) -> None:
        """Remove all but the newest `keep` reports, with their events.

        This run's own report stays: after the clock stepped back its name is the oldest.
        """
        names = (path for path in (paths.STATE / "reports").glob("*.json") if path.stem != self.report.run)
        others = sorted(names)
        with suppress(OSError):  # a read-only disk
            for path in others[: max(0, len(others) + 1 - keep)]:
                path.unlink(missing_ok=True)
                path.with_suffix(".events").unlink(missing_ok=True)


def read(run: str | None = None) -> Report:
    """Return the report of a run; without `run`, of the last one.

    Raises SoloError when there is no report, or it cannot be read; UsageError for an unknown run;
    PermissionError without root.
    """
    found = _reports_of(run) if run else [folder / _LAST for folder in (paths.RUN, paths.STATE)]
    for path in found:
        with suppress(FileNotFoundError):
            return _decode(path)
    raise SoloError("There is no report yet: nothing has run on this machine. `pyinfra-solo run` makes one.")


def last() -> Report | None:
    """Return the last run's report, or None when there is none that can be read."""
    try:
        return read()
    except (SoloError, OSError):
        return None


def last_is_hidden() -> bool:
    """Tell whether there is a report of the last run that this account may not read."""
    try:
        read()
    except PermissionError:
        return True
    except (SoloError, OSError):
        return False
    return False


def _reports_of(run: str) -> list[Path]:
    """List the report's path; nothing when there are no reports. A name is looked up, never followed."""
    folder = paths.STATE / "reports"
    try:
        known = sorted((path.stem for path in folder.iterdir() if path.suffix == ".json"), reverse=True)
    except FileNotFoundError:
        return []
    if known and run not in known:
        raise UsageError(f"There is no report of a run {run!r}. The newest are: {', '.join(known[:10])}.")
    return [folder / f"{run}.json"] if run in known else []


def _decode(path: Path) -> Report:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.MsgspecError as error:
        raise SoloError(
            f"{path} is not a report that this engine can read ({error}). See `journalctl -t pyinfra-solo`."
        ) from error
