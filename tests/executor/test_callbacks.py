"""pyinfra's callbacks and counts of operations are those of pyinfra's own run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage

from pyinfra_solo.errors import ConvergeError
from tests.support.line import converged, working_tree
from tests.support.pyinfra_api import pyinfra_state, within

HANDLER = """
from pyinfra import state
from pyinfra.api.state import BaseStateCallback

def note(state, name):
    with open(f"{data.target}/../noted", "a") as opened:
        opened.write(f"{name} {vars(next(iter(state.results.values())))}\\n")

def noting(name):
    return staticmethod(lambda state, *about: note(state, f"{name} {[one for one in about if isinstance(one, int)]}"))

handler = type("Handler", (BaseStateCallback,), {
    name: noting(name) for name in vars(BaseStateCallback) if name.startswith("operation_")
})
"""
IMPORTS = """
from io import StringIO
from pathlib import Path
from pyinfra.operations import files, python, server
"""
OPERATIONS = """
for _ in range(2):
    files.put(name="put once", src=StringIO("text"), dest=f"{data.target}/file", mode="644")
files.file(name="it is there", path=f"{data.target}/file")
server.shell(name="never", commands=["true"], _if=lambda: False)
server.shell(name="it fails, ignored", commands=["true", "false"], _ignore_errors=True)
server.shell(name="at the second time", commands=[f"test -e {data.target}/d || {{ mkdir {data.target}/d; false; }}"], _retries=2, _retry_delay=0)
server.shell(name="it is retried", commands=[f"rmdir {data.target}/d; mkdir {data.target}/d; exit 1"], _retries=1, _retry_delay=0, _ignore_errors=True)
python.call(name="nested", function=lambda: files.file(path=f"{data.target}/nested"))
python.call(name="counts", function=lambda: note(state, "at the end"))
"""
FAILS = """
server.shell(name="it fails", commands=["true", "false"])
"""


def run_by_pyinfra(target: Path, text: str) -> bool:
    """Run the operations by pyinfra's API; return whether they succeeded."""
    state = pyinfra_state()
    with within(state):
        state.set_stage(StateStage.Prepare)
        exec(IMPORTS + text, {"data": SimpleNamespace(target=target)})  # noqa: S102
        state.set_stage(StateStage.Execute)
        try:  # here, as pyinfra's context managers do not reset its context after an exception
            run_ops(state)
        except PyinfraError:
            return False
    return True


def run_by_us(target: Path, text: str) -> bool:
    try:
        converged(working_tree(target, text))
    except ConvergeError:
        return False
    return True


@pytest.mark.parametrize("handled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_callbacks_and_counts_are_pyinfras(handled: bool, fails: bool, tmp_path: Path) -> None:
    text = HANDLER + "state.add_callback_handler(handler())\n" * handled + OPERATIONS + FAILS * fails
    noted = []
    for run in (run_by_us, run_by_pyinfra):
        target = tmp_path / run.__name__ / "target"
        target.mkdir(parents=True)
        assert run(target, text) is not fails
        noted.append((target.parent / "noted").read_text().splitlines())
    assert noted[0] == noted[1]
    assert len(noted[0]) == (1 if not handled else 44 if fails else 41)
