"""What a service's processes may do, and what a right gives them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest

from pyinfra_solo.operations.service import Permission, render
from tests.support.programs import run as run_command
from tests.support.programs import wait_for
from tests.support.services import Start, service

RESTRICTIONS = {
    "metadata": {"IPAddressDeny"}, "low-ports": {"CapabilityBoundingSet"},
    "devices": {"PrivateDevices", "ProtectClock"}, "home": {"ProtectHome"}, "processes": {"ProtectProc"},
    "namespaces": {"RestrictNamespaces"}, "address-families": {"RestrictAddressFamilies"},
    "system-calls": {"SystemCallFilter", "SystemCallErrorNumber"},
    "everything": {
        "NoNewPrivileges", "CapabilityBoundingSet", "PrivateTmp", "PrivateDevices", "ProtectSystem", "ProtectHome",
        "ProtectProc", "ProtectClock", "ProtectHostname", "ProtectControlGroups", "ProtectKernelTunables",
        "ProtectKernelModules", "ProtectKernelLogs", "RestrictNamespaces", "RestrictAddressFamilies",
        "RestrictSUIDSGID", "RestrictRealtime", "LockPersonality", "SystemCallArchitectures", "SystemCallFilter",
        "SystemCallErrorNumber", "IPAddressDeny",
    },
}  # fmt: skip
"""Directives that a right takes away, or changes."""


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize(
    "allow", [[], *([one] for one in get_args(Permission) if one not in ("everything", "system-calls"))]
)
def test_a_unit_s_exposure_is_low_with_any_one_right(tmp_path: Path, allow: list[Permission]) -> None:
    unit = tmp_path / "demo.service"
    unit.write_text(render(service(user="shop", allow=allow, writable=["/srv/demo"]), "systemd"))
    done = run_command(["systemd-analyze", "security", "--offline=yes", "--threshold=25", unit], check=False)
    assert done.ok, done.stdout


@pytest.mark.parametrize("right", get_args(Permission))
def test_a_right_takes_nothing_but_its_own_restriction_away(right: Permission) -> None:
    strict, looser = (set(render(service(allow=allow), "systemd").splitlines()) for allow in ([], [right]))
    gone = {line.partition("=")[0] for line in strict - looser}
    assert gone == RESTRICTIONS[right]


def test_everything_and_another_right_restrict_nothing() -> None:
    text = render(service(allow=["low-ports", "everything"]), "systemd")
    assert "CapabilityBoundingSet" not in text
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in text


LISTENS = (
    "import os, socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
    "status = open('/proc/self/status').read().split(); print(os.getuid(), status[status.index('CapEff:') + 1],"
    "flush=True); time.sleep(60)"
)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
def test_it_listens_below_1024_with_that_right_alone(declare: Start) -> None:
    port = next(port for port in range(600, 1024) if _is_free(port))
    command = ["/usr/bin/python3", "-c", LISTENS, str(port)]
    script = declare(user="nobody", group="nogroup", command=command, allow=["low-ports"])
    script("start")
    wait_for("its output", lambda: script.log.read_text().count(" ") > 0, 10)
    assert script.log.read_text() == f"{pwd.getpwnam('nobody').pw_uid} 0000000000000400\n"
    assert script("stop") == 0
    forbidden = declare(user="nobody", group="nogroup", command=command)
    forbidden.log.unlink()
    forbidden("start")
    wait_for("its failure", lambda: "PermissionError" in forbidden.log.read_text(), 10)


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def test_an_upstart_job_gets_low_ports_by_setpriv() -> None:
    text = render(service(user="shop", group="crew", allow=["low-ports"]), "upstart")
    assert "\nsetuid " not in text
    assert "    exec /usr/bin/setpriv --reuid=shop --regid=crew --init-groups --inh-caps=" in text
