"""The Makefile's targets say what they cost before they start, and who may run them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.machine import REPOSITORY
from tests.support.programs import run

MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE)
COSTLY = [target for target in TARGETS if target not in ("help", "clean")]
AS_ROOT = [target for target in COSTLY if target not in ("lint", "schema", "lock")]
PREPARES = "tests/prepare.sh"
SPEAKS = '. tests/busy.sh\nbusy "at work" sh -c "$COMMAND"\necho done'


def test_help_lists_every_target() -> None:
    listed = re.findall(r"^make ([a-z]+) +\S", run(["make", "-C", REPOSITORY, "help"]).stdout, re.MULTILINE)
    assert listed == TARGETS
    assert {"help", *COSTLY, "clean"} == {*TARGETS}


@pytest.mark.parametrize("target", COSTLY)
def test_costs_are_said_before_anything_is_installed(target: str) -> None:
    planned = run(["make", "-C", REPOSITORY, "--dry-run", "--always-make", target]).stdout
    assert planned.index(f"tests/costs.sh {target}\n") < planned.index(PREPARES)


@pytest.mark.parametrize("target", COSTLY)
def test_costs_name_time_download_disk_and_removal(target: str, tmp_path: Path) -> None:
    """In a folder without .venv, as in a new clone."""
    (tmp_path / "tests").mkdir()
    script = tmp_path / "tests/costs.sh"
    script.write_text((REPOSITORY / "tests/costs.sh").read_text())
    environment = {"PATH": "/usr/bin:/bin", "PYINFRA_SOLO_LAB_CACHE": str(tmp_path / "cache")}
    said = run(["sh", script, target], env=environment).stdout
    assert said.startswith(f"make {target}: about ")
    assert re.search(r"takes about .* more, downloads about [\d.]+ GB, and leaves:", said)
    assert "to remove them: make clean" in said
    assert "to remove it: rm -rf ~/.cache/pip ~/.cache/uv" in said
    assert (f"to remove them: rm -rf {tmp_path}/cache" in said) == (target in AS_ROOT and target != "unit")


@pytest.mark.parametrize("target", AS_ROOT)
def test_another_user_than_root_gets_a_sentence(target: str, open_folder: Path) -> None:
    """Before anything else: of the project only the Makefile is there."""
    (open_folder / "Makefile").write_text(MAKEFILE)
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = run([*other, "make", "-C", open_folder, target], check=False)
    assert done.code != 0
    assert done.stderr.startswith(f"make {target}: run it as root: ")


def test_a_dot_shows_that_a_command_is_at_work(tmp_path: Path) -> None:
    """The command ends when it has seen one."""
    output = tmp_path / "output"
    command = f"until grep -q 'at work[.]' {output}; do sleep 0.1; done"
    with output.open("wb") as out:
        subprocess.run(
            ["sh", "-euc", SPEAKS], env={"PATH": "/usr/bin:/bin", "COMMAND": command}, stdout=out, cwd=REPOSITORY,
            check=True, timeout=60,
        )  # fmt: skip
    assert re.fullmatch(r"at work\.+\ndone\n", output.read_text())


def test_a_failed_command_shows_its_output_and_ends_the_script() -> None:
    script = f"cd {REPOSITORY}\n{SPEAKS}"
    environment = {"PATH": "/usr/bin:/bin", "COMMAND": "echo no such package; exit 7"}
    done = run(["sh", "-euc", script], env=environment, check=False).expect(7)
    assert done.stderr == "no such package\n"
    assert "done" not in done.stdout
