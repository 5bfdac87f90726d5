"""The environment in which git may run here: it never asks, never hangs, and trusts pinned keys only."""

import shlex
from pathlib import Path


def environment(deploy_key: Path | None = None, known_hosts: Path | None = None) -> dict[str, str]:
    """Variables for git and the ssh that it starts (git(1), ssh_config(5)).

    Without `known_hosts` no ssh host is known, so every ssh remote is refused. The low-speed limit
    ends a transfer that stalls: under 1000 bytes/s for 10 s (git-config(1), http.lowSpeedLimit).
    """
    ssh = [
        "ssh",
        "-F", "/dev/null",
        "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=yes",
        "-o", f"UserKnownHostsFile={known_hosts or '/dev/null'}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "UpdateHostKeys=no",
        "-o", "ConnectTimeout=10",
        "-o", "ServerAliveInterval=5",
        "-o", "ServerAliveCountMax=3",
        "-o", "IdentityAgent=none",
    ]  # fmt: skip
    if deploy_key:
        ssh += ["-o", "IdentitiesOnly=yes", "-i", str(deploy_key)]
    return {
        "GIT_SSH_COMMAND": shlex.join(ssh),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/true",
        "SSH_ASKPASS": "/bin/true",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
        "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
        "GIT_HTTP_LOW_SPEED_TIME": "10",
    }
