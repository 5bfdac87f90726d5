"""EventWriter: what is written when, and what is redacted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from pyinfra.api import StringCommand

from pyinfra_solo import protocol
from pyinfra_solo.executor.events import EventWriter
from pyinfra_solo.executor.execute import Executor
from pyinfra_solo.executor.host import local_state
from pyinfra_solo.native import programs
from pyinfra_solo.protocol import Event, Failed, OperationEnded, OperationStarted
from tests.support.machine import ENGINE
from tests.test_protocol import REQUEST

STARTED = OperationStarted(number=1, name="one")
HIDDEN = "hunter2"
BLOCKS = """
import os, signal
from pyinfra_solo.executor.events import EventWriter
from pyinfra_solo.protocol import OperationStarted
events = EventWriter(os.fdopen(1, "wb"))
signal.alarm(20)
events.flush_regularly()
events.buffer(OperationStarted(number=1, name="one"))
os.read(0, 1)
"""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[bytes]]:
    with (tmp_path / "events").open("w+b") as opened:
        yield opened


def written(log: IO[bytes]) -> list[Event | None]:
    """Decode the events that have left this process."""
    return [protocol.decode_event(line) for line in Path(log.name).read_bytes().splitlines()]


def test_buffered_event_is_written_before_the_next_one(log: IO[bytes]) -> None:
    events = EventWriter(log)
    events.buffer(STARTED)
    assert written(log) == []
    events.write(protocol.Done())
    assert written(log) == [STARTED, protocol.Done()]


def test_buffered_event_is_written_while_the_main_thread_blocks() -> None:
    """A killed run's file says which operation it was at."""
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKS],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert protocol.decode_event(process.stdout.readline()) == STARTED
        assert process.poll() is None


@pytest.mark.parametrize("native", [True, False])
def test_buffered_event_is_written_before_a_child_starts(
    log: IO[bytes], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child of a native fact, or of a shell command; no thread writes here."""
    for name in ("before_child", "after_child"):  # the Executor sets them for the whole process
        monkeypatch.setattr(programs, name, None)
    events = EventWriter(log)
    state = local_state(Path("/"), {})
    host = next(iter(state.inventory))
    Executor(REQUEST, state, host, events)
    events.buffer(STARTED)
    if native:
        seen = programs.stdout_of(["/bin/cat", log.name]).decode()
    else:
        seen = host.run_shell_command(StringCommand("cat", log.name))[1].stdout
    assert protocol.decode_event(seen.strip().encode()) == STARTED


@pytest.mark.parametrize(
    "event",
    [
        protocol.OperationsDeclared(names=["one", HIDDEN]),
        OperationStarted(number=1, name=HIDDEN),
        OperationEnded(
            name=HIDDEN, changed=True, output=[HIDDEN], diff=[f"+{HIDDEN}"],
            waits=[protocol.Wait(what=HIDDEN, seconds=1.0)],
        ),
        protocol.IdempotenceChecked(
            operations=[protocol.NotIdempotent(name=HIDDEN, commands=[HIDDEN])], seconds=1.0
        ),
        protocol.NativeOff(reason=HIDDEN),
        Failed(code=1, message=f"{HIDDEN}{HIDDEN}"),
    ],
    ids=lambda event: type(event).__name__,
)  # fmt: skip
def test_secret_is_redacted_in_every_field(log: IO[bytes], event: protocol.AnyEvent) -> None:
    events = EventWriter(log)
    events.hide([HIDDEN])
    events.write(event)
    assert type(written(log)[0]) is type(event)
    assert HIDDEN not in Path(log.name).read_text()
    assert "[redacted]" in Path(log.name).read_text()


def failed_with(log: IO[bytes], message: str, *secrets: str) -> str:
    """Write a failure, and return its message as the line reads it."""
    events = EventWriter(log)
    events.hide(secrets)
    events.write(Failed(code=1, message=message))
    (event,) = written(log)
    assert isinstance(event, Failed)
    return event.message


def test_secret_is_redacted_in_every_form_of_a_message(log: IO[bytes]) -> None:
    """As it is, quoted by Python, and with white space folded."""
    hidden = "hush  hush\tsecret\\x"
    message = f"{hidden} and {hidden!r} and {' '.join(hidden.split())}"
    assert failed_with(log, message, hidden) == "[redacted] and '[redacted]' and [redacted]"


def test_secret_of_several_lines_is_redacted_line_by_line(log: IO[bytes]) -> None:
    assert failed_with(log, "two-two, one-one", "one-one\ntwo-two\n") == "[redacted], [redacted]"


def test_secret_below_4_characters_is_not_redacted(log: IO[bytes]) -> None:
    """It would match inside ordinary words."""
    assert failed_with(log, "an example", "exa", "") == "an example"


def test_long_text_is_cut_after_secrets_are_redacted(log: IO[bytes]) -> None:
    """A part of a secret at the cut would be left."""
    assert failed_with(log, "x" * 1995 + HIDDEN, HIDDEN) == "x" * 1995 + "[reda"


def test_text_that_is_not_utf_8_is_escaped(log: IO[bytes]) -> None:
    """A file's name may hold any bytes (PEP 383); JSON with a lone surrogate cannot be decoded."""
    assert failed_with(log, "caf\udce9: no such file") == "caf\\udce9: no such file"
