"""The child of station converge: runs deploy.py through pyinfra's API, and tells what happens.

`python -m pyinfra_solo.play` reads one request from stdin and writes events to what was its stdout,
a JSON object a line. It is the checkout's own engine that runs here, in the checkout's runtime; the
one that asks may be older, so both sides know the protocol's number.
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec
from jinja2 import TemplateError
from pyinfra.api import Host, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.facts import ShortFactBase
from pyinfra.api.operations import run_host_op
from pyinfra.api.state import StateStage
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra.facts.files import Directory

from pyinfra_solo import checks, deploy
from pyinfra_solo.data import secrets
from pyinfra_solo.errors import ConvergeError, DataError, SoloError
from pyinfra_solo.gate import close_gate, look
from pyinfra_solo.local import ThisMachine, state_here
from pyinfra_solo.part import Part, bind
from pyinfra_solo.role import in_words
from pyinfra_solo.would import would

PROTOCOL = 1
_TAIL = 40
_MOST_TEXT = 2000
"""Characters of a message or a line; cut after secrets are taken out, so that no part of one is left."""
_REDACTED = "[redacted]"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the parent asks. mode: converge; plan, which runs facts and changes nothing; or blank,
    which runs nothing at all and answers every fact as a machine with nothing on it would."""

    protocol: int
    root: str
    role: str
    stage: str
    flags: dict[str, str]
    mode: str
    close_on_change: bool
    operation_seconds: float


class BlankMachine(Host):
    """A machine with systemd and nothing else on it: every fact is its own default, or what its
    `blank` makes of the question, where the default does not say it."""

    def get_fact(self, name_or_cls: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        fact = name_or_cls()
        if hasattr(fact, "blank"):
            return fact.blank(**kwargs)
        if name_or_cls is Directory and kwargs.get("path") == "/run/systemd/system":
            return {"mode": 755}
        if isinstance(fact, ShortFactBase):
            return fact.process_data(self.get_fact(fact.fact))
        return fact.default()


@dataclass
class Telling:
    """Writes events; takes secret values out of them."""

    out: TextIO
    hidden: Sequence[str] = ()

    def hide(self, secrets: Sequence[str]) -> None:
        """From now on. A secret of several lines is hidden line by line, as output and diffs are lines;
        what is shorter than four characters is no secret, and is part of every other word."""
        parts = {part for secret in secrets for part in (secret, *secret.splitlines())}
        self.hidden = sorted((part for part in parts if len(part.strip()) >= 4), key=len, reverse=True)

    def event(self, event: str, **values: Any) -> None:
        self.out.write(json.dumps({"event": event, **self._clean(values)}) + "\n")
        self.out.flush()

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self.hidden:
                value = value.replace(secret, _REDACTED)
            return value[:_MOST_TEXT]
        if isinstance(value, dict):
            return {key: self._clean(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._clean(inner) for inner in value]
        return value


def play(request: Request, tell: Telling) -> None:
    """Raises SoloError: ConvergeError when an operation fails, DataError for a template."""
    if request.protocol != PROTOCOL:
        raise ConvergeError(
            f"The engines disagree: protocol {request.protocol} was asked, {PROTOCOL} is spoken. Bake a new image."
        )
    root = Path(request.root)
    ThisMachine.seconds = request.operation_seconds
    bound = bind(root, request.role, request.stage, request.flags)
    declared = [check for one in bound for check in one.checks()]
    tell.event("declared", roles=[one.role.name for one in bound], checks=checks.to_json(declared))
    tell.hide([text for one in bound for text in secrets(one.role, one.data)])
    state = state_here(root, {}, BlankMachine if request.mode == "blank" else Host)
    deploy.play(Part(bound, changing=_closing(request, tell)))
    with _context(state) as host:
        _declare_operations(root / "deploy.py", state)
        order = list(host.op_hash_order)
        tell.event("operations", names=[_name(state, one) for one in order])
        for number, one in enumerate(order, 1):
            _one(request, state, host, one, number, tell)
    tell.event("done")


def _closing(request: Request, tell: Telling) -> Any:
    def changing() -> None:
        if request.mode != "converge":
            return
        tell.event("changing")
        if (request.close_on_change or not look().open) and close_gate("a run is changing this machine"):
            tell.event("closed")

    return changing


def _declare_operations(path: Path, state: State) -> None:
    """Execute deploy.py as pyinfra does: its operations are declared now and run afterwards."""
    state.current_deploy_filename = state.current_exec_filename = str(path)
    try:
        code = compile(path.read_text(), str(path), "exec")
        exec(code, {"__file__": str(path), "__name__": "__main__"})  # noqa: S102 - the ops repo's own program
    except SoloError:
        raise
    except FileNotFoundError as error:
        raise ConvergeError(f"{error.filename or path} is not in the ops repo. Commit it.") from error
    except Exception as error:
        raise _named(error, "deploy.py") from error


@contextmanager
def _context(state: State) -> Iterator[Host]:
    """pyinfra's own context managers do not reset after an exception; this process ends then."""
    host = next(iter(state.inventory))
    state.current_stage = StateStage.Prepare
    with (
        ctx_state.use(state),
        ctx_inventory.use(state.inventory),
        ctx_config.use(state.config.copy()),
        ctx_host.use(host),
    ):
        yield host


def _one(request: Request, state: State, host: Host, one: str, number: int, tell: Telling) -> None:
    """One operation, converged or planned. Raises ConvergeError or DataError when it fails."""
    name = _name(state, one)
    tell.event("starting", number=number, name=name)
    started = time.monotonic()
    _heard.lines.clear()
    state.is_executing = True
    state.current_stage = StateStage.Execute
    meta = state.get_op_data_for_host(host, one).operation_meta
    problem: SoloError | None = None
    diff: list[str] = []
    try:
        if request.mode == "converge":
            if not run_host_op(state, host, one):
                problem = ConvergeError(f"The operation {name!r} failed: {_last_words(meta)}")
        else:
            diff = _plan(state, host, one, blank=request.mode == "blank")
    except SoloError as error:
        problem = error
    except Exception as error:  # noqa: BLE001 - an operation is foreign code
        problem = _named(error, f"the operation {name!r}")
    complete = meta.is_complete()
    tell.event(
        "operation",
        name=name,
        changed=complete and meta.did_change(),
        failed=problem is not None,
        seconds=round(time.monotonic() - started, 3),
        output=_output(meta)[-_TAIL:] if problem else list(_heard.lines),
        diff=diff,
    )
    if problem:
        raise problem


def _plan(state: State, host: Host, one: str, *, blank: bool) -> list[str]:
    """What the operation would do. Its commands are made and not run, and it counts as done, so that
    what depends on it (`_if=it.did_change`) is planned too."""
    data = state.get_op_data_for_host(host, one)
    commands = list(data.command_generator())
    data.operation_meta.set_complete(True, commands, CommandOutput([]))
    return [line for command in commands for line in would(command, blank=blank)]


def _name(state: State, one: str) -> str:
    """Its name alone: pyinfra's arguments may hold secrets."""
    return ", ".join(sorted(state.get_op_meta(one).names))


def _output(meta: Any) -> list[str]:
    return [line.line for line in meta._combined_output or ()]


def _last_words(meta: Any) -> str:
    lines = [line for line in _output(meta) if line.strip()]
    return lines[-1] if lines else "; ".join(_heard.lines[-2:]) or "it gave no reason"


def _named(error: Exception, where: str) -> SoloError:
    """A foreign exception, by its cause: what only a commit can mend in a template is data."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TemplateError) or "Error in template" in str(cause):
            return DataError(f"A template of {where} is invalid: {_short(error)}. Correct it and commit.")
        cause = cause.__cause__ or cause.__context__
    kind = "" if isinstance(error, (PyinfraError, SyntaxError)) else f"{type(error).__name__}: "
    return ConvergeError(f"{where} failed: {kind}{_short(error)}")


def _short(error: BaseException) -> str:
    return re.sub(r"\s+", " ", in_words(error))


class _Heard(logging.Handler):
    """pyinfra's own last warnings and errors: for a time-out they are the only reason there is."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m|^\s*\[@local\]\s*", "", record.getMessage())
        self.lines = [*self.lines[-9:], re.sub(r"\s+", " ", text)]


_heard = _Heard()


def main() -> int:
    """What a role prints goes to stderr; stdout carries events alone."""
    tell = Telling(os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace"))
    os.dup2(2, 1)
    log = logging.getLogger("pyinfra")
    log.addHandler(_heard)
    log.propagate = False
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
        os.chdir(request.root)
        play(request, tell)
    except SoloError as error:
        tell.event("failed", code=error.exit_code, message=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # nothing is left to finalise, and taking gevent and pyinfra down costs 0.1 s
