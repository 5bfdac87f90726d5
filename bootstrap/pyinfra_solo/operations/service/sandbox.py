"""Restrict what a service's processes may do: directives of systemd.exec(5), less what a role allows.

`systemd-analyze security` of the result reads 1.7 (systemd 252).
"""

from pyinfra_solo.operations.service.spec import Init, Permission, Service
from pyinfra_solo.system import metadata

_RESTRICTIONS = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectProc": "invisible",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectControlGroups": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "RestrictNamespaces": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictSUIDSGID": "yes",
    "RestrictRealtime": "yes",
    "LockPersonality": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "SystemCallErrorNumber": "EPERM",
    "IPAddressDeny": " ".join(metadata.ADDRESSES),
}
"""Not MemoryDenyWriteExecute: it breaks every just-in-time compiler, and cffi's callbacks."""
_LOW_PORTS = "CAP_NET_BIND_SERVICE"
_ALLOWED: dict[Permission, dict[str, str | None]] = {
    "metadata": {"IPAddressDeny": None},
    "low-ports": {"CapabilityBoundingSet": _LOW_PORTS},
    # ProtectClock closes all devices but the clock's, too.
    "devices": {"PrivateDevices": None, "ProtectClock": None},
    "home": {"ProtectHome": None},
    "processes": {"ProtectProc": None},
    "namespaces": {"RestrictNamespaces": None},
    "address-families": {"RestrictAddressFamilies": None},
    "system-calls": {"SystemCallFilter": None, "SystemCallErrorNumber": None},
    "everything": dict.fromkeys(_RESTRICTIONS),
}
"""What a right changes; None takes the directive away. "everything" stands last: it wins."""


def directives(service: Service) -> list[str]:
    """List the lines of a unit that restrict the service."""
    wanted: dict[str, str | None] = {**_RESTRICTIONS}
    for permission, changes in _ALLOWED.items():
        wanted |= changes if permission in service.allow else {}
    wanted["AmbientCapabilities"] = _LOW_PORTS if "low-ports" in service.allow else None
    wanted["ReadWritePaths"] = " ".join(service.writable) or None
    return [f"{name}={value}" for name, value in wanted.items() if value is not None]


def launcher(service: Service, group: str, init: Init) -> list[str]:
    """List the words that start the service as its user, where root starts it.

    Upstart's `setuid` comes before the script, which then could not raise a limit; and nothing but
    setpriv(1) gives the right to low ports.
    """
    has_low_ports = "low-ports" in service.allow
    if not has_low_ports and (init != "upstart" or (service.user, group) == ("root", "root")):
        return []
    words = ["/usr/bin/setpriv", f"--reuid={service.user}", f"--regid={group}", "--init-groups"]
    kinds = ("inh-caps", "ambient-caps", "bounding-set") if has_low_ports else ()
    return [*words, *(f"--{kind}=-all,+net_bind_service" for kind in kinds)]
