"""`python -m tests.support.native_expected`: what the installed pyinfra means by the facts that are answered natively
is written to pyinfra_solo/native/expected.py, after somebody has compared the answers with pyinfra's changes."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

from pyinfra_solo.native import registry as known
from tests.support.machine import ENGINE, REPOSITORY

_MODULES = ("files", "server", "deb", "systemd")


def meanings() -> dict[str, dict[str, str]]:
    """`known.meaning` of each fact that is answered, by pyinfra's module."""
    from pyinfra_solo.executor.host import local_state
    from tests.support.pyinfra_api import within

    found: dict[str, dict[str, str]] = {}
    with within(local_state(REPOSITORY, {})):
        for module in _MODULES:
            ours = import_module(f"pyinfra_solo.native.{module}")
            theirs = import_module(f"pyinfra.facts.{module}")
            names = sorted({**getattr(ours, "VALUES", {}), **getattr(ours, "LINES", {})})
            found[module] = {name: known.meaning(getattr(theirs, name)) for name in names}
    return found


def text() -> str:
    rows = [
        f'"""What pyinfra {version("pyinfra")} means by the facts that are answered here: `known.meaning` of each.',
        "",
        'Made by `python -m tests.support.native_expected`."""',
        "",
        "EXPECTED: dict[str, dict[str, str]] = {",
    ]
    for module, facts in meanings().items():
        rows += [
            f'    "{module}": {{',
            *(f'        "{name}": "{digest}",' for name, digest in facts.items()),
            "    },",
        ]
    return "\n".join([*rows, "}", ""])


if __name__ == "__main__":
    (ENGINE / "pyinfra_solo/native/expected.py").write_text(text())
