"""The line as the command runs it, on a machine below a folder, and the station converge alone."""

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.errors import SoloError
from pyinfra_solo.protocol import VERSION, Request, RunOptions
from pyinfra_solo.run.console import PlainConsole
from pyinfra_solo.run.run import Run
from pyinfra_solo.stations.converge import Changes, converge, engine_of
from pyinfra_solo.system.deadline import Deadline
from tests.support.machine import LocalMachine, install_runtime
from tests.support.ops_repo import ops, write
from tests.support.repository import Repository

LOCK = "# nothing but what the image has\n"
FILE = 'files.put(name="the file is there", src=StringIO(data.text), dest=f"{data.target}/file")'


def new_run(seconds: float = 60, output: io.StringIO | None = None, *, keep_report: bool = True) -> Run:
    """Start a run that logs to `output`; its report is below the folder of `use_root`."""
    return Run(
        "test", Deadline.after(seconds), PlainConsole(output or io.StringIO()), keep_report=keep_report
    )


def converged(root: Path, *, run: Run | None = None, **options: Any) -> Changes:
    """Run the station converge on a working tree: role `site`, stage `staging`."""
    run = run or new_run()
    mode, seconds = options.pop("mode", "converge"), options.pop("operation_timeout", 30.0)
    request = Request(
        protocol=VERSION, root=str(root), role="site", stage="staging", mode=mode, operation_timeout=seconds,
        drain="on-change", options=RunOptions(**options),
    )  # fmt: skip
    with run.station("converge"):
        return converge(
            request, engine_of(root, Path(sys.executable)), deadline=run.deadline, observe=run.observe,
            events_file=run.events_file, lock=run.lock,
        )  # fmt: skip


def working_tree(target: Path, operations: str, healthy: str = "", **more: str) -> Path:
    """Write a working tree beside `target`, the folder in which its role `site` does `operations`."""
    return write(target.parent / "tree", ops(operations, target, healthy, **more))


def failed(root: Path, kind: type[SoloError], **options: Any) -> tuple[str, Run]:
    """Run the station converge, which must raise an error of this kind. Return its message, and the run."""
    run = new_run()
    with pytest.raises(kind) as raised:
        converged(root, run=run, **options)
    return str(raised.value), run


class Line:
    """A machine, its ops repo, and the folder in which its role works."""

    def __init__(self, folder: Path) -> None:
        self.machine = LocalMachine(folder / "machine")
        self.target = folder / "target"
        self.target.mkdir()
        self.repository = Repository(folder / "ops.git").make()
        self.settings()
        install_runtime(self.machine, LOCK)

    def settings(self, ops: str = "", **tables: str) -> None:
        self.machine.configure(ops=f'remotes = ["{self.repository.path}"]\n{ops}', **tables)

    def commit(self, operations: str, healthy: str = "", more: Mapping[str, str | None] | None = None) -> str:
        """Commit a role that does `operations` and checks `healthy`. Return the commit's id."""
        files = {**ops(operations, self.target, healthy), "requirements.lock": LOCK, **(more or {})}
        return self.repository.commit(files, "a change")

    def put_in_service(self, operations: str = FILE, healthy: str = "") -> None:
        """Boot until the gate is open."""
        self.commit(operations, healthy)
        self.machine.solo("boot").expect(0)
        assert self.machine.in_service

    @property
    def note_gate(self) -> str:
        """An operation that notes whether the gate is open while it runs, and changes nothing else."""
        ping, noted = self.machine.ping, self.target / "seen"
        line = f"test -e {ping} && echo open >> {noted} || echo closed >> {noted}"
        return f"\nserver.shell(name='the gate is noted', commands={line!r})\n"

    @property
    def noted_gate(self) -> list[str]:
        return (self.target / "seen").read_text().split()

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.machine.state / "last-run.json").read_text())
        return found

    @property
    def close_reason(self) -> str:
        found = json.loads(self.machine.solo("gate", "status", "--json").expect(1).stdout)
        return str(found["reason"])
