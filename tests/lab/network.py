"""A network of the lab's own, linked to nothing: one bridge with the addresses of the fake cloud.

bridge   10.77.0.1 router, .2 name server, .10 git, .11 aws, .12 apt, .13 pypi,
         169.254.169.254 metadata service
machine  10.77.0.20 and up, by DHCP, one address per name
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import host
from tests.support import programs
from tests.support.imds import IMDS

BRIDGE = "br0"
BRIDGE_MAC = "02:00:0a:4d:01:01"
ROUTER = "10.77.0.1"
DNS = "10.77.0.2"
SERVICES = {
    "git.lab": "10.77.0.10",
    "aws.lab": "10.77.0.11",
    "apt.lab": "10.77.0.12",
    "pypi.lab": "10.77.0.13",
}
FIRST_MACHINE = 20

_numbers = itertools.count()


@dataclass
class Link:
    """A machine's cable: its namespace, and the bridge's end of its veth pair."""

    namespace: Path
    port: str
    mac: str
    address: str
    plugged: bool = True


@dataclass
class Network:
    """One namespace with the bridge, dnsmasq for DHCP and names; made by `up`, gone by `down`."""

    folder: Path
    name: str = field(default_factory=lambda: f"solo-lab-{os.getpid()}-{next(_numbers)}")
    links: dict[str, Link] = field(default_factory=dict)
    _dnsmasq: subprocess.Popen[bytes] | None = None
    _machines: dict[str, int] = field(default_factory=dict)

    @property
    def namespace(self) -> Path:
        """The namespace's file, for nsenter(1) and setns(2)."""
        return Path("/run/netns") / self.name

    def up(self) -> None:
        """Make the namespace, the bridge and its addresses, and start dnsmasq."""
        programs.run(["ip", "netns", "add", self.name])
        commands = [
            "link set lo up",
            # A bridge without an address of its own takes the lowest of its ports', and so changes it when
            # a machine comes or goes: then the others talk to nobody until their ARP has noticed.
            f"link add {BRIDGE} address {BRIDGE_MAC} type bridge forward_delay 0 stp_state 0",
            f"link set {BRIDGE} up",
            f"addr add {ROUTER}/24 dev {BRIDGE}",
            *(f"addr add {ip}/32 dev {BRIDGE}" for ip in (DNS, IMDS, *SERVICES.values())),
        ]
        programs.run(["ip", "-n", self.name, "-b", "-"], stdin="\n".join(commands).encode())
        (self.folder / "hosts.d").mkdir(parents=True)
        self._dnsmasq = self.start(self._dnsmasq_command(), self.folder / "dnsmasq.log")
        programs.wait_for("dnsmasq", lambda: self.listens(DNS, 53), timeout=10)

    def _dnsmasq_command(self) -> list[str]:
        return [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
            "--local=/#/",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--no-ping",
            "--log-facility=-",
            "--log-dhcp",
            f"--listen-address={ROUTER}",
            f"--listen-address={DNS}",
            "--dhcp-range=10.77.0.0,static,255.255.255.0,1h",
            f"--dhcp-option=option:router,{ROUTER}",
            f"--dhcp-option=option:dns-server,{DNS}",
            f"--dhcp-leasefile={self.folder / 'leases'}",
            f"--dhcp-hostsdir={self.folder / 'hosts.d'}",
            *(f"--host-record={name},{ip}" for name, ip in SERVICES.items()),
        ]

    def down(self) -> None:
        """Stop dnsmasq and remove every namespace that this network made."""
        if self._dnsmasq is not None:
            self._dnsmasq.kill()
            self._dnsmasq.wait(timeout=10)
        for machine in list(self.links):
            self.unlink(machine)
        programs.run(["ip", "netns", "delete", self.name], check=False)

    def entered(self) -> AbstractContextManager[None]:
        """Make this thread's new sockets the lab's inside the block."""
        return host.in_network(self.namespace)

    def start(self, argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a server inside; its output goes to `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(
                ["nsenter", f"--net={self.namespace}", *argv],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def listen(self, address: str, port: int) -> socket.socket:
        """Open a listening TCP socket at one of the bridge's addresses."""
        with self.entered():
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(128)
        return server

    def listens(self, address: str, port: int) -> bool:
        """Tell whether something accepts TCP connections there."""
        with self.entered(), contextlib.suppress(OSError):
            socket.create_connection((address, port), timeout=1).close()
            return True
        return False

    def link(self, machine: str) -> Link:
        """Make a cable for `machine`: the same address, and a new namespace, each time."""
        old = self.links.get(machine)
        number = self._machines.setdefault(machine, FIRST_MACHINE + len(self._machines))
        link = Link(
            namespace=Path("/run/netns") / f"{self.name}-{number}",
            port=f"port{number}",
            mac=f"02:00:0a:4d:00:{number:02x}",
            address=f"10.77.0.{number}",
            plugged=old.plugged if old else True,
        )
        self.unlink(machine)
        self.links[machine] = link
        lease = self.folder / "hosts.d" / machine
        if not lease.exists():
            lease.write_text(f"{link.mac},{link.address},{machine}\n")
        there = link.namespace.name
        programs.run(["ip", "netns", "add", there])
        peer = f"peer name eth0 address {link.mac} netns {there}"
        commands = [
            f"link add {link.port} type veth {peer}",
            f"link set {link.port} master {BRIDGE}",
            f"link set {link.port} {'up' if link.plugged else 'down'}",
            # A health check must not wait for ARP to give up on a machine that is off.
            f"neigh replace {link.address} lladdr {link.mac} dev {BRIDGE} nud permanent",
        ]
        programs.run(["ip", "-n", self.name, "-b", "-"], stdin="\n".join(commands).encode())
        return link

    def unlink(self, machine: str) -> None:
        """Remove a machine's cable; its address stays its own."""
        link = self.links.get(machine)
        if link is not None and link.namespace.exists():
            programs.run(["ip", "-n", self.name, "link", "delete", link.port], check=False)
            programs.run(["ip", "netns", "delete", link.namespace.name], check=False)

    def plug(self, machine: str, *, into: bool = True) -> None:
        """Plug a machine's cable in, or pull it; holds over power-offs too."""
        link = self.links[machine]
        link.plugged = into
        self.ip("link", "set", link.port, "up" if into else "down")

    def withhold(self, address: str) -> Callable[[], None]:
        """Remove an address, so that packets to it are lost. Return a function that restores it."""
        self.ip("addr", "delete", f"{address}/32", "dev", BRIDGE)
        return lambda: self.ip("addr", "add", f"{address}/32", "dev", BRIDGE)

    def ip(self, *words: str) -> None:
        """Run ip(8) inside."""
        programs.run(["ip", "-n", self.name, *words])
