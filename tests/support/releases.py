"""An application's repository, and releases made of it on this machine: what their tests share."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra.operations import server

from pyinfra_solo import paths
from pyinfra_solo.operations import release as app
from pyinfra_solo.operations.release import bundle
from pyinfra_solo.operations.release.request import Request
from tests.support.both_ways import our_state
from tests.support.pyinfra_api import Played, play, play_in
from tests.support.repository import Repository
from tests.support.wheels import PYTHON

NAME = "the shop is at its release"
AFTER = "what depends on the release is done"


@dataclass
class Shop:
    """A repository of an app, and the folder in which its releases are made."""

    repository: Repository
    root: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        return self.root / "shop"

    @property
    def current(self) -> Path:
        return self.base / "current"

    def push(self, text: str, **more: str | bytes | None) -> str:
        """A commit whose page says `text`."""
        return self.repository.commit({"page.txt": text, "page.py": f"TEXT = {text!r}\n", **more}, text)

    def page(self) -> str:
        return (self.current / "page.txt").read_text()

    def release(self, *, how: str = "ours", **options: Any) -> Played:
        """Once, by what a converge uses ("ours"), by its shell commands ("shell"), or by pyinfra alone ("pyinfra")."""
        wanted: dict[str, Any] = {
            "app": "shop",
            "repo": str(self.repository.path),
            "user": "nobody",
            "root": str(self.root),
            "requirements": None,
            "wheels": str(self.root / "wheels"),
            **self.options,
            **options,
        }

        def declare() -> None:
            made = app.release(name=NAME, **wanted)
            server.shell(name=AFTER, commands=["true"], _if=made.did_change)

        return play(declare) if how == "pyinfra" else play_in(our_state(native=how == "ours"), declare)

    def releases(self) -> list[str]:
        """Names in the folder of releases."""
        return sorted(path.name for path in (self.base / "releases").iterdir())

    def start(self, sha: str, *, prelude: str = "", **environment: str) -> subprocess.Popen[str]:
        """The program that makes a release, alone, in a session of its own."""
        request = Request(
            app="shop", repo=str(self.repository.path), ref="main", sha=sha, user="nobody", keep=3,
            requirements=self.options.get("requirements") or "", deploy_key="", known_hosts="", python=PYTHON,
            root=str(self.root), wheels=str(self.root / "wheels"), timeout=60, offline="fail",
            build=self.options.get("build", False), uv="", run=str(paths.RUN),
        )  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-I", "-c", prelude + bundle.source(), "apply", request.json()],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


class Spies:
    """Hears from code of packages by a socket without a file: a build can write nowhere outside."""

    def __init__(self) -> None:
        self._name = f"\0pyinfra-solo-test-{os.getpid()}-{id(self)}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self._name)
        self._socket.listen(1000)
        self._socket.setblocking(False)

    def __enter__(self) -> Spies:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def code(self, expression: str) -> str:
        """One line of Python that sends the value of an expression of text."""
        return (
            f"import os, socket; t = {expression}; s = socket.socket(socket.AF_UNIX); "
            f"s.connect({self._name!r}); s.sendall(t.encode()); s.close()"
        )

    def heard(self) -> list[str]:
        """What has come until now."""
        found = []
        with suppress(BlockingIOError):
            while True:
                with self._socket.accept()[0] as one, one.makefile() as file:
                    found.append(file.read())
        return found


def changed(played: Played) -> bool:
    """It changed something; a failure is an error of the test."""
    assert not played.failed, played.text
    assert played.made in ((), (NAME, AFTER)), played
    return bool(played.made)


def refused(played: Played) -> str:
    assert played.failed == NAME, played.text
    return played.text


@contextmanager
def warnings() -> Iterator[list[str]]:
    """What pyinfra's log warns of meanwhile."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Lines(logging.WARNING)
    logging.getLogger("pyinfra").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("pyinfra").removeHandler(handler)
