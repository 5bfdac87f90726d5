"""The floor: what the work costs a straight program in Python with Jinja2, and nothing else.

W_ROOT=/srv/tree W_FOLDERS=100 python floor.py file.j2
"""
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH115, PTH123, PTH211

import contextlib
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

LINE = "limit = 4096"


def directory(path: str, mode: int) -> bool:
    """Make a folder, or its mode and owner right; whether that took a change."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        os.mkdir(path)
        os.chmod(path, mode)
        return True
    if not stat.S_ISDIR(found.st_mode):
        sys.exit(f"{path} is there, and is no folder")
    return right(path, found, mode)


def file(path: str, data: bytes, mode: int) -> bool:
    """Write a file under another name and rename it, if its bytes differ; then its mode and owner."""
    try:
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode):
            with open(path, "rb") as opened:
                if opened.read() == data:
                    return right(path, found, mode)
    except FileNotFoundError:
        pass
    beside = f"{path}.new"
    with open(beside, "wb") as opened:
        opened.write(data)
        os.fchmod(opened.fileno(), mode)
    os.rename(beside, path)
    return True


def right(path: str, found: os.stat_result, mode: int) -> bool:
    """Make mode and owner (root) right."""
    changed = False
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)
        changed = True
    if (found.st_uid, found.st_gid) != (os.getuid(), os.getgid()):
        os.chown(path, os.getuid(), os.getgid())
        changed = True
    return changed


def link(path: str, target: str) -> bool:
    """Make a symlink; one that leads elsewhere is replaced."""
    with contextlib.suppress(FileNotFoundError, OSError):
        if os.readlink(path) == target:
            return False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.symlink(target, path)
    return True


def line(path: str, wanted: str) -> bool:
    """Append a line that a file does not have."""
    text = Path(path).read_text()
    if wanted in text.splitlines():
        return False
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    return file(path, f"{text}{wanted}\n".encode(), mode)


def package(name: str) -> bool:
    """Install a Debian package that is not."""
    query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status}", name]
    if (
        subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout
        == b"installed"
    ):
        return False
    subprocess.run(["apt-get", "install", "--yes", name], check=True)
    return True


def user(name: str) -> bool:
    """Add an account that is not there."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", name], check=True)
        return True
    return False


def main(template_path: Path) -> int:
    """All of it; how many changes it took."""
    root, folders = os.environ["W_ROOT"], int(os.environ["W_FOLDERS"])
    loader = FileSystemLoader(template_path.parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - no HTML
    template = environment.get_template(template_path.name)
    changes = user("www-data") + package("git") + line(f"{root}/lines.conf", LINE)
    for folder in range(folders):
        inside = f"{root}/d{folder}"
        changes += directory(inside, 0o750)
        for number in range(10):
            values = {"title": f"d{folder}-f{number}", "shard": folder, "port": f"90{number}"}
            changes += file(f"{inside}/f{number}", template.render(values).encode(), 0o644)
        changes += link(f"{inside}/link", f"{inside}/f0")
    return changes


if __name__ == "__main__":
    changed = main(Path(sys.argv[1])) if len(sys.argv) > 1 else 0
    sys.stdout.write(f"{changed} changes\n")
