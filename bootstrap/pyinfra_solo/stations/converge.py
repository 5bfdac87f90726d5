"""Station converge: deploy.py through pyinfra, in a process group of its own, with a deadline.

The checkout's engine does it, in the checkout's runtime (play.py); this side hears its events,
writes them down as they come, and ends all of it when the time is up.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from pyinfra_solo import errors, paths
from pyinfra_solo.errors import ConvergeError, DataError, DeadlineError, JudgedError, SoloError
from pyinfra_solo.report.records import NotIdempotent, Operation
from pyinfra_solo.run.run import Run
from pyinfra_solo.stations.resolve import Choice
from pyinfra_solo.system import processes

PROTOCOL = 1
ENGINE = "bootstrap/pyinfra_solo"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a converge did, or a plan would do. checks: the role's, declared, for the judge."""

    roles: Sequence[str]
    operations: Sequence[Operation]
    checks: Sequence[dict[str, Any]]
    closed: bool
    """The gate was open, and was closed before the first change."""
    again: Sequence[NotIdempotent] | None = None
    """What a second look found to do again; None when nothing was done, or an older engine makes none."""

    @property
    def changed(self) -> int:
        """How many operations changed something."""
        return sum(operation.changed for operation in self.operations)

    def require_idempotent(self) -> None:
        """Raises JudgedError, naming every operation that would change something again."""
        if self.again is None and self.changed:
            raise JudgedError(
                "The ops repo's engine makes no second look, so that nothing proves that the machine is converged. "
                'Let it have a newer engine, or set converge.idempotence = "report". The gate stays closed.'
            )
        if not self.again:
            return
        said = "; ".join(f"{one.name}: {', '.join(one.would)}" for one in self.again)
        raise JudgedError(
            f"Converged, but a second converge would change something again: {said}. Make it idempotent, or set "
            'converge.idempotence = "report". The gate stays closed.'
        )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The python that converges, and the environment in which the checkout's engine is found."""

    python: Path
    environment: Mapping[str, str]


def engine_of(root: Path, python: Path) -> Engine:
    """The checkout's own engine, else the one its lock file names. Raises DataError without either."""
    environment = _environment()
    if (root / ENGINE / "__init__.py").exists():
        environment["PYTHONPATH"] = str((root / ENGINE).parent)
    elif not next(python.parent.parent.glob("lib/python3*/site-packages/pyinfra_solo/__init__.py"), None):
        raise DataError(
            f"The ops repo has no engine: neither {ENGINE} nor pyinfra-solo in requirements.lock. Add one."
        )
    return Engine(python=python, environment=environment)


def engine_here(python: Path) -> Engine:
    """The engine that runs now, for when the checkout that converged is no longer there."""
    return Engine(python=python, environment=_environment() | {"PYTHONPATH": str(Path(__file__).parents[2])})


def _environment() -> dict[str, str]:
    """This process's, less what changes a Python. PYTHONSAFEPATH: `-m` would else take modules from the
    folder in which root stands."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    kept |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}
    kept.setdefault("DEBIAN_FRONTEND", "noninteractive")
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    kept.setdefault("LANG", "C.UTF-8")
    kept.setdefault("HOME", "/root")
    return kept


def converge(
    root: Path,
    engine: Engine,
    choice: Choice,
    flags: Mapping[str, str],
    run: Run,
    *,
    operation_seconds: float,
    mode: str = "converge",
    close_on_change: bool = True,
    stock: bool = False,
) -> Changes:
    """mode: converge, plan or blank; stock: nothing native (see play.py). Raises the error that the child names, or
    DeadlineError, or ConvergeError when the child dies without a word."""
    request: dict[str, Any] = {
        "protocol": PROTOCOL, "root": str(root), "role": choice.role.name, "stage": choice.stage.name,
        "flags": dict(flags), "mode": mode, "close_on_change": close_on_change, "operation_seconds": operation_seconds,
    }  # fmt: skip
    if stock:  # an engine that does not know the word refuses it
        request["stock"] = True
    process = subprocess.Popen(
        [str(engine.python), "-m", "pyinfra_solo.executor"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(engine.environment), cwd=root, start_new_session=True,
        pass_fds=run.lock,
    )  # fmt: skip
    late = threading.Event()

    def end() -> None:
        late.set()
        processes.end_session(process.pid)

    timer = threading.Timer(run.deadline.left(), end)
    timer.start()
    try:
        heard = EventReader(run, aloud=mode == "converge")
        for event in _events(process, request, run):
            heard.take(event)
        process.wait()
    finally:
        timer.cancel()
        processes.end_session(process.pid)
        process.wait()
        if process.stdout:
            process.stdout.close()
    if late.is_set():
        raise DeadlineError(
            f"Out of time while {heard.doing}. Raise limits.deadline, or see why it takes so long."
        )
    return heard.result(process.returncode)


def _events(process: subprocess.Popen[bytes], request: dict[str, Any], run: Run) -> Iterator[dict[str, Any]]:
    """Each event, written down as it comes: a killed run's file says which operation it was at."""
    assert process.stdin and process.stdout  # noqa: S101, PT018 - pipes were asked for
    with process.stdin:
        process.stdin.write(json.dumps(request).encode())
    with _log_of(run) as log:
        for line in process.stdout:
            log.write(line)
            log.flush()
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def _log_of(run: Run) -> BinaryIO:
    """Only root may read it: the output of what failed may hold anything. A full disk must not stop a
    run here; the report says so."""
    path = paths.STATE / "reports" / f"{run.id}.events" if run.keeps_report else Path(os.devnull)
    try:
        return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError:
        return Path(os.devnull).open("ab")


class EventReader:
    """What the events so far say."""

    def __init__(self, run: Run, *, aloud: bool) -> None:
        self._run = run
        self._aloud = aloud
        self._declared: dict[str, Any] | None = None
        self._names: list[str] = []
        self._failed: dict[str, Any] | None = None
        self._done = False
        self._closed = False
        self._again: list[NotIdempotent] | None = None
        self.doing = "starting pyinfra"

    def take(self, event: dict[str, Any]) -> None:  # noqa: C901 - a case for each event
        match event.get("event"):
            case "declared":
                self._declared = event
            case "operations":
                self._names = event["names"]
            case "starting":
                self.doing = f"the operation {event['name']!r} was running"
                self._run.console.starting(event["name"], event["number"], len(self._names))
            case "operation":
                self._operation(event)
            case "changing":
                self._run.changing = True
            case "closed":
                self._closed = True
                self._run.say("the gate is closed: something changes")
            case "second look":
                self.doing = "every operation was looked at again"
            case "again":
                self._second_look(
                    msgspec.convert(event["operations"], list[NotIdempotent]), float(event["seconds"])
                )
            case "native off":
                self._run.say(event["reason"])
            case "failed":
                self._failed = event
            case "done":
                self._done = True

    def _operation(self, event: dict[str, Any]) -> None:
        operation = msgspec.convert(event, Operation)
        self._run.report.operations.append(operation)
        if self._aloud:
            self._run.console.operation(operation, len(self._run.report.operations), len(self._names))

    def _second_look(self, found: list[NotIdempotent], seconds: float) -> None:
        self._again = self._run.report.again = found
        names = "; ".join(one.name for one in found) or "nothing"
        self._run.say(f"a second look, {seconds:.2f} s: {names} would change something again")

    def result(self, status: int) -> Changes:
        if self._failed:
            raise _error(int(self._failed["code"]), str(self._failed["message"]))
        if not self._done or status != 0 or self._declared is None:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise ConvergeError(
                f"The converge ended with {how} while {self.doing}. Its last words are in the journal."
            )
        return Changes(
            roles=self._declared["roles"],
            operations=tuple(self._run.report.operations),
            checks=self._declared["checks"],
            closed=self._closed,
            again=self._again,
        )


def _error(code: int, message: str) -> SoloError:
    """The child's error as ours: by its exit status, which is what units and scripts go by."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SoloError)]
    kind = next((kind for kind in kinds if kind.exit_code == code and kind is not SoloError), ConvergeError)
    return kind(message)
