"""A declared service, and its LSB script in a folder of a test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyinfra_solo.operations.service import Service, render

SHELL = Service(
    name="demo", user="root", open_files=1024, command=["/bin/sh", "-c", "while :; do sleep 0.1; done"]
)
"""A container may not raise the limit of open files."""


def service(**options: Any) -> Service:
    """A service `demo` that a shell keeps busy."""
    return replace(SHELL, **options)


class Script:
    """The LSB script of a service, with pid files and log in a folder."""

    def __init__(self, folder: Path, declared: Service) -> None:
        self.folder = folder
        self.path = folder / "demo"
        self.log = folder / f"{declared.name}.log"
        self.path.write_text(render(declared, "sysv", run=str(folder), log=str(folder), self=str(self.path)))
        self.path.chmod(0o755)

    def __call__(self, verb: str) -> int:
        """Its exit status. Its output is a pipe: a daemon that held it would be waited for in vain."""
        return subprocess.run(
            [self.path, verb], capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=False
        ).returncode

    def pid(self, kind: str = "child") -> int:
        return int((self.folder / f"demo.{kind}").read_text().split()[0])

    def up(self) -> bool:
        return self("status") == 0


Start = Callable[..., Script]
