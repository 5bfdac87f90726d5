"""Carry what `release` needs to the machine, as one JSON word. Standard library only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

MAX_BYTES = 4 << 30


@dataclass(frozen=True, kw_only=True)
class Request:
    """See `release` for app to build.

    run: the folder of what lasts until the next boot. ask: False reads the machine and asks no remote.
    sha: the wanted commit, once it is known. uv: where uv is, if it is not on PATH.
    """

    app: str
    repo: str
    ref: str
    user: str
    keep: int
    requirements: str
    deploy_key: str
    known_hosts: str
    python: str
    root: str
    wheels: str
    timeout: int
    offline: str
    build: bool
    uv: str
    run: str
    ask: bool = True
    sha: str = ""
    max_bytes: int = MAX_BYTES

    def json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def base(self) -> Path:
        return Path(self.root, self.app)

    @property
    def kept(self) -> Path:
        """The folder of system/kept.py."""
        return Path(self.run, "kept")
