"""Run deploy.py through pyinfra's API, for the station converge of another engine version.

`python -m pyinfra_solo.executor` reads a protocol.Request from stdin, and writes events to stdout.
"""

import os
import sys

from pyinfra_solo import protocol
from pyinfra_solo.errors import ConvergeError, SoloError
from pyinfra_solo.executor import lazy_pyinfra
from pyinfra_solo.executor.events import EventWriter, ShownStream
from pyinfra_solo.protocol import Request
from pyinfra_solo.system.text import in_words


def main() -> int:
    """Return the exit status. What a role prints goes to stderr; stdout carries events alone."""
    events = EventWriter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    sys.stdout = sys.stderr = ShownStream(events, os.dup(2))
    try:
        request = protocol.decode_request(sys.stdin.buffer.read(), Request)
        events.write(protocol.Started(protocol=protocol.VERSION))
        lazy_pyinfra.import_pyinfra()
        from pyinfra_solo.executor import pyinfra_speed, session

        pyinfra_speed.start()
        os.chdir(request.root)
        session.run(request, events)
    except SoloError as error:
        if error.__cause__:
            events.log_traceback(error.__cause__)
        events.write(protocol.Failed(code=error.exit_code, message=str(error)))
        return error.exit_code
    except (Exception, SystemExit) as error:  # noqa: BLE001 - its own traceback would show secrets
        events.log_traceback(error)
        message = f"The converge failed: {type(error).__name__}: {in_words(error)}. Its traceback is in the journal."
        events.write(protocol.Failed(code=ConvergeError.exit_code, message=message))
        return ConvergeError.exit_code
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # nothing is left to finalise, and finalising pyinfra costs 0.1 s
