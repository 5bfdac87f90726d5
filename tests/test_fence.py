"""The fence is taken away before the first operation that may start a service, and not before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyinfra_solo import fence, paths
from tests.support.line import FILE, converged, working_tree
from tests.support.machine import ENGINE, LocalMachine

pytestmark = pytest.mark.usefixtures("machine_root")

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text()
NOTE = "\npython.call(name='it is noted', function=lambda: Path(data.target, 'seen').write_text('ran'))\n"


def test_fence_that_did_not_fail_has_no_problem() -> None:
    assert fence.problem() == ""


def test_release_marks_this_boot() -> None:
    fence.release()
    assert (paths.RUN / "web-servers").read_text() == BOOT


@pytest.mark.parametrize(
    ("operations", "is_released"),
    [(FILE, False), (FILE + NOTE, True), ("pass", False)],
    ids=["a file", "a file and a function", "nothing"],
)
def test_web_servers_may_start_before_what_may_start_them(
    target: Path, operations: str, is_released: bool
) -> None:
    """A package's own script may start one with the image's configuration, as `files` may reload none."""
    converged(working_tree(target, operations))
    assert (paths.RUN / "web-servers").exists() == is_released


def test_plan_does_not_take_the_fence_away(target: Path) -> None:
    converged(working_tree(target, FILE + NOTE), mode="plan")
    assert not (paths.RUN / "web-servers").exists()
    assert not (target / "seen").exists()


def test_pyinfras_own_command_takes_the_fence_away(tmp_path: Path, target: Path) -> None:
    machine = LocalMachine(tmp_path / "machine")
    root = working_tree(target, FILE)
    machine.pyinfra(root, "--dry").expect(0)
    assert not (machine.run_folder / "web-servers").exists()
    machine.pyinfra(root).expect(0)
    assert (machine.run_folder / "web-servers").read_text() == BOOT


def test_operator_takes_the_fence_away(tmp_path: Path) -> None:
    machine = LocalMachine(tmp_path / "machine")
    machine.solo("gate", "unfence").expect(0)
    assert (machine.run_folder / "web-servers").read_text() == BOOT
    assert not machine.in_service


def test_operator_is_told_of_a_failed_fence(tmp_path: Path) -> None:
    machine = LocalMachine(tmp_path / "machine")
    machine.run_folder.mkdir(parents=True)
    (machine.run_folder / "fence.failed").write_text("the fence failed: remove /srv/old\n")
    failed = machine.solo("gate", "unfence").expect(30)
    assert failed.stderr == "pyinfra-solo: the fence failed: remove /srv/old\n"


RELEASE = """
mount -t tmpfs tmpfs {root}/held && echo 'echo held' > {root}/held/nginx && chmod 755 {root}/held/nginx
mount --bind {root}/held/nginx {root}/etc/init.d/nginx
{python} -c 'from pyinfra_solo import fence; fence.release()'
{root}/etc/init.d/nginx
"""


@pytest.mark.parametrize(("problem", "printed"), [("", "real\n"), ("the fence failed", "held\n")])
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_release_unmounts_held_scripts_unless_the_fence_failed(
    machine_root: Path, problem: str, printed: str
) -> None:
    for name in ("etc/init.d", "held"):
        (machine_root / name).mkdir(parents=True)
    script = machine_root / "etc/init.d/nginx"
    script.write_text("#!/bin/sh\necho real\n")
    script.chmod(0o755)
    if problem:
        paths.RUN.mkdir(parents=True)
        (paths.RUN / "fence.failed").write_text(problem)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", RELEASE.format(root=machine_root, python=sys.executable)],
        env={**os.environ, "PYTHONPATH": str(ENGINE)}, capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    assert done.stdout == printed
