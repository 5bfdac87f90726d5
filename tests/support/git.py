"""Git servers on the loopback, for tests without the lab: git's http-backend, and a real sshd."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.loopback import ADDRESS as HERE
from tests.support.loopback import Loopback
from tests.support.programs import wait_for
from tests.support.repository import FORCED, backend, make_key
from tests.support.web import WebServer


def free_port() -> int:
    with socket.create_server((HERE, 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def http_server(repositories: Path) -> Iterator[WebServer]:
    """Serves the bare repositories in a folder at `server.url`/NAME.git; faults can be set."""
    network = Loopback()
    server = WebServer(network, HERE, backend(repositories))
    server.start()
    server.port = network.port
    try:
        yield server
    finally:
        server.stop()


@dataclass
class Sshd:
    """An sshd of OpenSSH whose one account is ours, by the key `client`; `swap` changes its host key."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.client = make_key(self.folder / "client", "client")
        public = self.client.with_suffix(".pub").read_text()
        (self.folder / "authorized_keys").write_text(f"{FORCED} {public}")

    def url(self, repository: Path) -> str:
        return f"ssh://root@{HERE}:{self.port}{repository}"

    @property
    def known_hosts(self) -> str:
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[{HERE}]:{self.port} {kind} {key}\n"

    def start(self) -> None:
        program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
        if not program or os.geteuid() != 0:
            pytest.fail("a real sshd needs root, and openssh-server: `make unit` installs it", pytrace=False)
        for old in self.folder.glob("host_key*"):
            old.unlink()
        make_key(self.folder / "host_key", "host")
        (self.folder / "config").write_text(
            f"Port {self.port}\nListenAddress {HERE}\nHostKey {self.folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(self.folder / "config")], stderr=log, start_new_session=True
            )
        wait_for("sshd", self._listens, timeout=15)

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        self._process = None

    def swap(self) -> None:
        """From now on it is another host, as far as a client can tell."""
        self.stop()
        self.start()

    def _listens(self) -> bool:
        try:
            socket.create_connection((HERE, self.port), timeout=1).close()
        except OSError:
            return False
        return True


@contextmanager
def ssh_server(folder: Path) -> Iterator[Sshd]:
    server = Sshd(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
