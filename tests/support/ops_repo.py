"""Ops repos small enough to read: one role `site`, and this working tree's engine by a link."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.support.machine import ENGINE, REPOSITORY

DEPLOY = (REPOSITORY / "deploy.py").read_text()

_ROLE = """\
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from pyinfra import host
from pyinfra.operations import files, python, server

from pyinfra_solo import checks
from pyinfra_solo.role import Secret, role


@dataclass(frozen=True, kw_only=True)
class Site:
    text: str = "hello"
    token: Secret = ""
    target: str = {target!r}


def healthy(data):
    return [{healthy}]


@role(data=Site, healthy=healthy)
def site(data):
{operations}
"""


def site(operations: str, target: Path, healthy: str = "") -> str:
    """Write a role `site`, whose operations may use `data.text`, `data.token`, `data.target`."""
    body = textwrap.indent(textwrap.dedent(operations).strip() or "pass", "    ")
    return _ROLE.format(operations=body, target=str(target), healthy=healthy)


def ops(operations: str, target: Path, healthy: str = "", **more: str) -> dict[str, str]:
    """Return the files of an ops repo with the one role `site` and the stages staging and production.

    more: files, `__` standing for `/` and a last `_` for `.`, which no keyword can have.
    """
    return {
        "deploy.py": DEPLOY,
        "roles/__init__.py": "",
        "roles/site/__init__.py": site(operations, target, healthy),
        "inventories/staging.py": "hosts = []\n",
        "inventories/production.py": "hosts = []\n",
        **more,
    }


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write a working tree with `files`, and a link to this working tree's engine."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if not (root / "bootstrap").exists():
        (root / "bootstrap").symlink_to(ENGINE)
    return root
