"""What each command loads: a list, since every module is time on every machine at every boot.

After a change that is meant: `python -m tests.test_loaded`, and read what it says before it is committed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.machine import REPOSITORY
from tests.support.ops_repo import ops, write

LOADED = Path(__file__).with_name("loaded.json")
HEAVY = ("pyinfra", "boto3", "botocore", "git", "gevent", "paramiko", "jinja2")
POLLED = ("--help", "status", "gate status", "gate close", "report", "install")
"""What is asked all the time, or by whoever waits for an answer."""
_RUN = """
import atexit, json, os, sys
atexit.register(lambda: json.dump(sorted(sys.modules), open(os.environ["LOADED"], "w")))
sys.argv = json.loads(os.environ["ARGV"])
"""
_COMMAND = _RUN + "from pyinfra_solo.cli.main import main; main()"
_CHILDREN = {
    "converge, nothing to do": _RUN + "from pyinfra_solo import play; play.main()",
    "judge": _RUN + "from pyinfra_solo import judge; judge.main()",
}
_SETTINGS = """\
[machine]
role = "site"
stage = "staging"
ec2 = "no"
[ops]
remotes = ["/nowhere"]
within = 1
"""
WORDS = {
    "--help": ["--help"],
    "status": ["status"],
    "gate status": ["gate", "status"],
    "gate close": ["gate", "close", "--reason", "a test"],
    "report": ["report", "--slow"],
    "install": ["install", "--init", "upstart"],
    "init": ["init", "made"],
    "run": ["run"],
    "plan": ["plan", "--dir", "ops", "--blank", "--role", "site", "--stage", "staging"],
}


def loaded(name: str, folder: Path) -> list[str]:
    """Our modules, and the packages of others (a module alone, where its package is not loaded), that the
    command has loaded when it ends."""
    given = "{}"
    if name.startswith("converge"):
        root = write(folder / "ops", ops("pass", folder))
        given = json.dumps(
            {"protocol": 1, "root": str(root), "role": "site", "stage": "staging", "flags": {}, "mode": "converge",
             "close_on_change": False, "operation_seconds": 60}
        )  # fmt: skip
    elif name == "judge":
        given = '{"checks": [], "seconds": 1}'
    elif name == "plan":
        write(folder / "ops", ops("pass", folder))
    elif name == "run":
        write(folder / "etc/pyinfra-solo", {"config.toml": _SETTINGS})
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY / "bootstrap"),
        "PYTHONSAFEPATH": "1",
        "PYINFRA_SOLO_ROOT": str(folder),
        "LOADED": str(folder / "loaded"),
        "ARGV": json.dumps(["pyinfra-solo", *WORDS.get(name, [])]),
    }
    subprocess.run(
        [sys.executable, "-c", _CHILDREN.get(name, _COMMAND)],
        env=environment, cwd=folder, input=given, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    modules = set(json.loads((folder / "loaded").read_text()))
    ours = {module for module in modules if module.startswith("pyinfra_solo.")}
    others = {module for module in modules - ours if module.rpartition(".")[0] not in modules}
    return sorted(ours | {module for module in others if not _of_python(module)})


def _of_python(module: str) -> bool:
    """sitecustomize is Debian's."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or top.startswith("_") or top in ("pyinfra_solo", "sitecustomize")


@pytest.mark.parametrize("name", [*WORDS, *_CHILDREN])
def test_a_command_loads_what_its_list_says(name: str, tmp_path: Path) -> None:
    assert loaded(name, tmp_path) == json.loads(LOADED.read_text())[name]


@pytest.mark.parametrize("name", POLLED)
def test_what_is_asked_all_the_time_loads_nothing_heavy(name: str) -> None:
    assert not set(json.loads(LOADED.read_text())[name]) & set(HEAVY)


def test_a_converge_loads_neither_ssh_nor_the_aws_api_nor_git() -> None:
    converge = set(json.loads(LOADED.read_text())["converge, nothing to do"])
    assert "pyinfra" in converge
    assert not converge & {"paramiko", "invoke", "cryptography", "gevent", "boto3", "git", "typeguard"}


if __name__ == "__main__":
    found = {}
    for each in (*WORDS, *_CHILDREN):
        with tempfile.TemporaryDirectory() as made:
            found[each] = loaded(each, Path(made))
    LOADED.write_text(json.dumps(found, indent=1) + "\n")
