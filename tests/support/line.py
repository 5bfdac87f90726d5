"""A machine, its ops repo and what its role does: the whole line, as the command runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.machine import LocalMachine, install_runtime
from tests.support.ops_repo import ops
from tests.support.repository import Repository

LOCK = "# nothing but what the image has\n"
FILE = 'files.put(name="the file is there", src=StringIO(data.text), dest=f"{data.target}/file")'


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
        """The role does `operations` and is healthy when `healthy`."""
        files: dict[str, str | bytes | None] = {
            **ops(operations, self.target, healthy),
            "requirements.lock": LOCK,
        }
        return self.repository.commit({**files, **(more or {})}, "a change")

    def in_service(self, operations: str = FILE, healthy: str = "") -> None:
        """Converged, judged, and its gate open."""
        self.commit(operations, healthy)
        self.machine.solo("boot").expect(0)
        assert self.machine.in_service

    @property
    def seen(self) -> str:
        """An operation that notes whether the gate is open while it runs, and changes nothing else."""
        ping, noted = self.machine.ping, self.target / "seen"
        line = f"test -e {ping} && echo open >> {noted} || echo closed >> {noted}"
        return f"\nserver.shell(name='the gate is looked at', commands={line!r})\n"

    @property
    def was_seen(self) -> list[str]:
        return (self.target / "seen").read_text().split()

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.machine.state / "last-run.json").read_text())
        return found

    @property
    def closed_because(self) -> str:
        said = json.loads(self.machine.solo("gate", "status", "--json").expect(1).stdout)
        return str(said["reason"])
