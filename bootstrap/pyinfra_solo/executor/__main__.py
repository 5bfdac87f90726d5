"""The child of station converge: runs deploy.py through pyinfra's API, and tells what happens.

`python -m pyinfra_solo.executor` reads one request from stdin and writes events to what was its stdout,
a JSON object a line. It is the checkout's own engine that runs here, in the checkout's runtime; the
one that asks may be older, so both sides know the protocol's number.
"""

import os
import sys

import msgspec

from pyinfra_solo.errors import ConvergeError, SoloError
from pyinfra_solo.executor import lazy_pyinfra
from pyinfra_solo.executor.events import EventWriter

PROTOCOL = 1


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
    stock: bool = False
    """Every fact and command by a shell, nothing in the process."""


def _request(text: bytes) -> Request:
    try:
        return msgspec.json.decode(text, type=Request)
    except msgspec.ValidationError as error:
        raise ConvergeError(
            f"The engines disagree: {error}. Bake a new image, or let the ops repo have a newer engine."
        ) from error


def main() -> int:
    """What a role prints goes to stderr; stdout carries events alone."""
    tell = EventWriter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    lazy_pyinfra.import_pyinfra()
    from pyinfra_solo.executor import pyinfra_speed

    pyinfra_speed.start()
    from pyinfra_solo.executor.session import work

    try:
        request = _request(sys.stdin.buffer.read())
        if request.protocol != PROTOCOL:
            raise ConvergeError(
                f"The engines disagree: protocol {request.protocol} was asked, {PROTOCOL} is spoken. Bake a new image."
            )
        os.chdir(request.root)
        work(request, tell)
    except SoloError as error:
        tell.event("failed", code=error.exit_code, message=str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # nothing is left to finalise, and taking pyinfra down costs 0.1 s
