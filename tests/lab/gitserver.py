"""A git server over HTTP (git's own http-backend) and SSH (a real sshd), and its faults."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.image import Image
from tests.lab.network import SERVICES, Network
from tests.support import programs
from tests.support.repository import FORCED, Repository, backend, make_key
from tests.support.web import Faults, Request, WebServer

NAME = "git.lab"
INSIDE = "/srv/git"

SSHD = f"""\
HostKey /etc/lab-ssh/host_key
AuthorizedKeysFile /etc/lab-ssh/authorized_keys
PasswordAuthentication no
UsePAM no
StrictModes no
AllowUsers git
PidFile none
ListenAddress {SERVICES[NAME]}
"""
ACCOUNTS = {
    "passwd": "root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
    "git:x:0:0::/srv/git:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
    "shadow": "root:*:1::::::\ngit:*:1::::::\n",
}


@dataclass
class GitServer:
    """Serves the repositories under `folder`; the sshd is the one in `image`."""

    network: Network
    folder: Path
    image: Image
    _sshd: subprocess.Popen[bytes] | None = None
    _keys: int = 0
    deploy_key: Path = field(init=False)
    """The private key that SSH accepts."""

    def __post_init__(self) -> None:
        self._web = WebServer(self.network, SERVICES[NAME], backend(self.repositories))
        self.repositories.mkdir(parents=True)
        (self.folder / "ssh").mkdir()
        self.deploy_key = make_key(self.folder / "deploy_key", "deploy")
        public = self.deploy_key.with_suffix(".pub").read_text()
        (self._ssh / "authorized_keys").write_text(f"{FORCED} {public}")
        (self._ssh / "sshd_config").write_text(SSHD)
        for name, text in ACCOUNTS.items():
            (self._ssh / name).write_text(text)
        self._new_host_key()

    @property
    def repositories(self) -> Path:
        """The folder of bare repositories."""
        return self.folder / "repositories"

    @property
    def _ssh(self) -> Path:
        return self.folder / "ssh"

    @property
    def faults(self) -> Faults:
        """Faults over HTTP; `stop`, `hang` and `swap_host_key` are for HTTP and SSH."""
        return self._web.faults

    @property
    def log(self) -> list[Request]:
        """Every HTTP request so far."""
        return self._web.log

    @property
    def known_hosts(self) -> str:
        """The line that a client's known_hosts needs."""
        kind, key = (self._ssh / "host_key.pub").read_text().split()[:2]
        return f"{NAME} {kind} {key}\n"

    def repository(self, name: str) -> Repository:
        """Make an empty repository called `name`."""
        bare = self.repositories / f"{name}.git"
        return Repository(
            bare,
            http_url=f"http://{NAME}/{name}.git",
            ssh_url=f"ssh://git@{NAME}{INSIDE}/{name}.git",
        ).make()

    def start(self) -> None:
        """Serve HTTP and SSH."""
        self._web.start()
        self._start_sshd()

    def stop(self) -> None:
        """Refuse connections over HTTP and SSH, and end those that are open."""
        self._web.stop()
        self._stop_sshd()

    def hang(self, on: bool = True) -> None:
        """With `on`, accept connections and never answer, over HTTP and SSH; without, answer again."""
        self.faults.hang = on
        if self._sshd is not None:
            os.killpg(self._sshd.pid, signal.SIGSTOP if on else signal.SIGCONT)

    def heal(self) -> None:
        """Undo every fault; serve again when stopped."""
        self.faults.clear()
        self.hang(False)
        if self._sshd is None:
            self.start()

    def swap_host_key(self) -> None:
        """Change the SSH host key."""
        self._stop_sshd()
        self._new_host_key()
        self._start_sshd()

    def _new_host_key(self) -> None:
        for file in self._ssh.glob("host_key*"):
            file.unlink()
        make_key(self._ssh / "host_key", NAME)

    def _start_sshd(self) -> None:
        root = self._ssh / "root"
        for folder in (root, self._ssh / "upper", self._ssh / "work"):
            folder.mkdir(exist_ok=True)
        upper, work = self._ssh / "upper", self._ssh / "work"
        options = f"lowerdir={self.image.lowerdir},upperdir={upper},workdir={work}"
        script = f"""set -e
            mount -t overlay overlay -o {options} {root}
            mount --rbind /dev {root}/dev
            mount -t proc proc {root}/proc
            mkdir -p {root}/run/sshd {root}/etc/lab-ssh {root}{INSIDE}
            cp {self._ssh}/passwd {self._ssh}/shadow {root}/etc/
            printf '[safe]\\ndirectory = *\\n' > {root}/etc/gitconfig
            mount --bind {self._ssh} {root}/etc/lab-ssh
            mount --bind {self.repositories} {root}{INSIDE}
            exec chroot {root} /usr/sbin/sshd -D -e -f /etc/lab-ssh/sshd_config"""
        argv = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
        self._sshd = self.network.start(argv, self.folder / "sshd.log")
        address = SERVICES[NAME]
        programs.wait_for("sshd", lambda: self.network.listens(address, 22), timeout=15)

    def _stop_sshd(self) -> None:
        if self._sshd is not None:
            # Its sessions are sessions of their own (setsid), but end with their connection's
            # process, which is its child.
            for pid in [*_children(self._sshd.pid), self._sshd.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._sshd.wait(timeout=10)
        self._sshd = None


def _children(pid: int) -> list[int]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(word) for word in file.read_text().split()] if file.exists() else []
    return [*below, *(child for one in below for child in _children(one))]
