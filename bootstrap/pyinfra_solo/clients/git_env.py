"""Make the environment of git: it never prompts, never hangs, and trusts pinned host keys only.

Standard library only: `release` sends this module to machines that have no engine.
"""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit


def environment(deploy_key: Path | None = None, known_hosts: Path | None = None) -> dict[str, str]:
    """Return variables for git and the ssh that it starts (git(1), ssh_config(5)).

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


def split_credentials(remote: str) -> tuple[str, dict[str, str]]:
    """Split a http or https URL into one without user and password, and variables that send these.

    No redirect is followed with them: git sends the header to the host that it is redirected to, too.
    See git-config(1), http.extraHeader, http.followRedirects, and git(1), GIT_CONFIG_COUNT. Other remotes
    stay as they are.
    """
    parts = urlsplit(remote) if remote.startswith(("http://", "https://")) else None
    if parts is None or parts.username is None:
        return remote, {}
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    header = f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"
    root = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/", "", ""))
    return clean, {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"http.{root}.extraHeader",
        "GIT_CONFIG_VALUE_0": header,
        "GIT_CONFIG_KEY_1": "http.followRedirects",
        "GIT_CONFIG_VALUE_1": "false",
    }
