"""The roots that machines start from: Debian 12 with each of five init systems or setups.

One mmdebstrap run makes `bare`; the others are layers over it or over each other, made with apt.
The mirror is the one of the host's own apt for Debian 12.

    python -m tests.lab.roots all
"""

from __future__ import annotations

import inspect
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab import host
from tests.lab.image import Chroot, Image, digest, fresh_folder, locked, make_image
from tests.support import programs
from tests.support.cache import cache_folder

SUITES = {"bookworm", "bookworm-updates", "bookworm-security"}

BARE = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "git",
    "python3",
    "python3-venv",
    "openssh-client",
    "openssh-server",
    "ca-certificates",
    "curl",
    "iproute2",
    "sudo",
    "procps",
    "systemd-timesyncd",
]

ADDRESSES = """\
[Match]
Name=eth0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
[DHCPv4]
UseHostname=no
"""

INTERFACES = """\
auto lo
iface lo inet loopback
auto eth0
iface eth0 inet dhcp
"""

# No DMI and no /sys/hypervisor in a container, so ds-identify finds no cloud: name it.
# `strict_id: false` lets DataSourceEc2 go on without the DMI uuid (cloud-init 22.4.2).
CLOUD = """\
datasource_list: [Ec2]
datasource:
  Ec2:
    strict_id: false
    timeout: 5
    max_wait: 60
    metadata_urls: ["http://169.254.169.254"]
network: {config: disabled}
apt: {preserve_sources_list: true}
locale: false
"""

BARE_HOOK = """
set -e
cd "$1"
: > etc/machine-id
rm -f etc/apt/sources.list etc/apt/sources.list.d/* var/lib/dbus/machine-id etc/hostname
rm -f etc/resolv.conf etc/ssh/ssh_host_*
echo nameserver 10.77.0.2 > etc/resolv.conf
mkdir -p var/log/journal
ln -sf /dev/null etc/systemd/system/console-getty.service
chroot . systemctl enable -q systemd-networkd.service systemd-networkd-wait-online.service
chroot . systemctl mask -q ssh.service getty.target e2scrub_reap.service
"""


def debian_sources() -> str:
    """Return the host's own sources of Debian 12, one `deb` line each.

    Raises LabError when the host has none, as on another distribution.
    """
    folder = Path("/etc/apt")
    lines = list(_stanzas(sorted(folder.glob("sources.list.d/*.sources"))))
    for file in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]:
        for line in file.read_text().splitlines() if file.exists() else ():
            words = line.split("]")[-1].split() if "[" in line else line.split()[1:]
            if line.startswith("deb ") and len(words) > 1 and words[1] in SUITES:
                lines.append(line)
    if not lines:
        raise programs.LabError("/etc/apt names no source of Debian 12 (bookworm) to build roots from")
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _stanzas(files: list[Path]) -> Iterator[str]:
    for file in files:
        for stanza in file.read_text().split("\n\n"):
            fields = dict(
                line.split(": ", 1)
                for line in stanza.splitlines()
                if ": " in line and not line.startswith(("#", " "))
            )
            signed = f"[signed-by={fields['Signed-By']}] " if "Signed-By" in fields else ""
            for suite in fields.get("Suites", "").split():
                if suite in SUITES and "deb" in fields["Types"].split():
                    for address in fields["URIs"].split():
                        yield f"deb {signed}{address} {suite} {fields['Components']}"


def bare() -> Image:
    """Build Debian 12 minimal with systemd, python3, git and ssh; no web server. Takes a minute."""
    key = f"bare-{digest(' '.join(BARE), BARE_HOOK, ADDRESSES)}"
    root = cache_folder() / "roots" / key
    with locked(key):
        if not root.exists():
            building = fresh_folder(root)
            _mmdebstrap(building)
            network = building / "root/etc/systemd/network/10-eth0.network"
            network.write_text(ADDRESSES)
            (building / "root").rename(root)
            shutil.rmtree(building)
    return Image(key, (root,))


def _mmdebstrap(building: Path) -> None:
    sources = building / "sources.list"
    sources.write_text(debian_sources())
    hook = building / "hook"
    hook.write_text(f"#!/bin/sh\n{BARE_HOOK}")
    hook.chmod(0o755)
    apt = apt_folders()
    command = [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(BARE)}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        f"--customize-hook=sync-out /var/lib/apt/lists {apt / 'lists'}",
        f"--customize-hook={hook}",
        "bookworm",
        str(building / "root"),
        str(sources),
    ]
    programs.run(command, timeout=900)


def apt_folders() -> Path:
    """Return the folder of apt's cached `lists` and `archives`, and of the host's Debian sources.list."""
    apt = cache_folder() / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(debian_sources())
    return apt


def with_apt(base: Image, key: str, recipe: Callable[[Chroot], None]) -> Image:
    """Build a layer as `make_image` does, with the host's Debian sources and a shared cache of packages."""
    # One at a time: apt in one build would find the shared folders locked by another's.
    with locked("apt"):
        apt = apt_folders()
        return make_image(
            base,
            recipe,
            key,
            binds={apt / "sources.list": "/etc/apt/sources.list.d/lab-build.list"},
            writable={
                apt / "lists": "/var/lib/apt/lists",
                apt / "archives": "/var/cache/apt/archives",
            },
        )


def apt_install(chroot: Chroot, packages: str, *options: str) -> None:
    """Install packages in a layer made with `with_apt`; no service is started."""
    script = (
        "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d\n"
        'trap "rm -f /usr/sbin/policy-rc.d /etc/apt/sources.list.d/lab-build.list" EXIT\n'
        "try() { apt-get -q -o APT::Keep-Downloaded-Packages=true -o Dpkg::Options::=--force-unsafe-io"
        f" install -y --no-install-recommends {' '.join(options)} {packages}; }}\n"
        # The cached lists may name versions that the mirror has dropped since.
        "try || { apt-get -q update && try; }"
    )
    chroot.run(script, timeout=600)


def _systemd(chroot: Chroot) -> None:
    apt_install(chroot, "nginx-light unattended-upgrades")


def _cloud_init(chroot: Chroot) -> None:
    apt_install(chroot, "cloud-init")
    chroot.write("/etc/cloud/cloud.cfg.d/90_lab.cfg", CLOUD)
    chroot.write("/etc/cloud/ds-identify.cfg", "policy: enabled\n")
    # On EC2 cloud-init asks for tokens; in a container only this file says that it is EC2.
    source = "/usr/lib/python3/dist-packages/cloudinit/sources/DataSourceEc2.py"
    chroot.run(f"sed -i s,/sys/hypervisor/uuid,/etc/lab-hypervisor-uuid, {source}")
    chroot.write("/etc/lab-hypervisor-uuid", "ec2e1916-9099-7caf-fd21-012345abcdef\n")


def _sysv(chroot: Chroot) -> None:
    packages = "sysvinit-core initscripts insserv ifupdown isc-dhcp-client nginx-light"
    apt_install(chroot, f"{packages} systemd-sysv-", "--allow-remove-essential")
    chroot.write("/etc/network/interfaces", INTERFACES)
    chroot.run("sed -i '/^[1-6]:.*getty/d' /etc/inittab; update-rc.d -f ssh remove; insserv")


def _openrc(chroot: Chroot) -> None:
    apt_install(chroot, "openrc")


def root(name: str) -> Image:
    """Return the root called `name`: bare or one of RECIPES; built when absent."""
    if name == "bare":
        return bare()
    parent, recipe = RECIPES[name]
    # A recipe's own code is its key, so that a change of it rebuilds the root.
    code = [inspect.getsource(function) for function in (recipe, apt_install)]
    return with_apt(root(parent), f"{name}-{digest(*code, CLOUD, INTERFACES)}", recipe)


RECIPES: dict[str, tuple[str, Callable[[Chroot], None]]] = {
    "systemd": ("bare", _systemd),
    "cloud-init": ("systemd", _cloud_init),
    "sysv": ("bare", _sysv),
    "cloud-init-sysv": ("sysv", _cloud_init),
    "openrc": ("sysv", _openrc),
}

NAMES = ["bare", *RECIPES]


def main(names: list[str]) -> None:
    """Build the named roots, or all of them."""
    if reason := host.missing():
        sys.exit(reason)
    for name in NAMES if "all" in names else names:
        start = time.monotonic()
        image = root(name)
        sys.stdout.write(f"{name}: {image.key} in {time.monotonic() - start:.0f} s\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["all"])
