"""The work that every tool is given, and what the tree looks like when it is done.

For N files: N/10 folders d0, d1, ... of mode 750, in each ten files of a KB from one template with three
variables (mode 644) and a symlink to the first of them; the account www-data, the package git, and a
line in a file, all of which are Debian's but the line.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = (Path(__file__).parent / "policies/ops/templates/file.j2").read_text()
LINES = "lines.conf"
SEED = "".join(f"setting-{number} = {number}\n" for number in range(40))
LINE = "limit = 4096\n"
COLD, NO_OP, DRIFT = "cold", "no-op", "drift"
STATES = (COLD, NO_OP, DRIFT)

Seen = dict[str, tuple[int, int, int]]
"""Path in the tree -> inode, size and time of the last change in nanoseconds."""


@dataclass(frozen=True)
class Entry:
    """What a path must be. kind: of S_IFMT; mode: permissions, not asked of a link; holds: bytes, or target."""

    kind: int
    mode: int
    holds: bytes = b""


@dataclass(frozen=True)
class Workload:
    """The work for `files` files, a multiple of ten, below `root`.

    inside: what the tools call `root`, where they see it at another place.
    """

    files: int
    root: Path
    inside: str = ""

    @property
    def folders(self) -> int:
        """How many folders: one for ten files."""
        return self.files // 10

    @property
    def changes(self) -> dict[str, int]:
        """How many things a tool has to change, for each state."""
        return {COLD: self.files + 2 * self.folders + 1, NO_OP: 0, DRIFT: 1}

    def environment(self) -> dict[str, str]:
        """How every tool is told. Puppet reads what begins with FACTER_ as a fact."""
        numbers = " ".join(str(folder) for folder in range(self.folders))
        root = self.inside or str(self.root)
        variables = {"W_ROOT": root, "W_FOLDERS": str(self.folders), "W_NUMBERS": numbers}
        return variables | {f"FACTER_{name.lower()}": value for name, value in variables.items()}

    def lay_out(self) -> None:
        """Make the tree as it is before a cold run: a file that lacks its line, and nothing else."""
        self.root.mkdir(mode=0o755)
        (self.root / LINES).write_text(SEED)
        (self.root / LINES).chmod(0o644)

    def drift(self) -> str:
        """Change the content of one file where it stands, as a hand does; its path in the tree."""
        name = f"d{self.folders // 2}/f5"
        with (self.root / name).open("a") as opened:
            opened.write("changed by hand\n")
        return name

    def expected(self) -> Iterator[tuple[str, Entry]]:
        """Every path of the finished tree."""
        yield LINES, Entry(stat.S_IFREG, 0o644, (SEED + LINE).encode())
        for folder in range(self.folders):
            yield f"d{folder}", Entry(stat.S_IFDIR, 0o750)
            target = f"{self.inside or self.root}/d{folder}/f0"
            yield f"d{folder}/link", Entry(stat.S_IFLNK, 0, target.encode())
            for number in range(10):
                yield f"d{folder}/f{number}", Entry(stat.S_IFREG, 0o644, rendered(folder, number))

    def seen(self) -> Seen:
        """All files and links as they are now, for `rewritten`."""
        return {name: _identity(info) for name, info in self._tree() if not stat.S_ISDIR(info.st_mode)}

    def wrong(self) -> list[str]:
        """What is not as it must be, a sentence each; [] when the work is done. The owner must be ours."""
        found = dict(self._tree())
        wanted = dict(self.expected())
        missing = [f"{name} is missing" for name in wanted.keys() - found.keys()]
        extra = [f"{name} should not be there" for name in found.keys() - wanted.keys()]
        both = [name for name in wanted if name in found]
        return [
            *missing,
            *extra,
            *(text for name in both for text in self._faults(name, wanted[name], found[name])),
        ]

    def rewritten(self, before: Seen, but: str = "") -> list[str]:
        """Files and links other than `but` that are no longer the same ones, untouched, as `before`."""
        now = self.seen()
        return [f"{name} was touched" for name in before if name != but and now.get(name) != before[name]]

    def _tree(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)  # noqa: PTH118 - pathlib takes seconds for 10,000 files
                yield os.path.relpath(path, self.root), os.lstat(path)

    def _faults(self, name: str, wanted: Entry, info: os.stat_result) -> Iterator[str]:
        if stat.S_IFMT(info.st_mode) != wanted.kind:
            yield f"{name} is of another kind"
            return
        if (info.st_uid, info.st_gid) != (os.getuid(), os.getgid()):
            yield f"{name} is owned by {info.st_uid}:{info.st_gid}"
        if wanted.kind == stat.S_IFLNK:
            if os.fsencode((self.root / name).readlink()) != wanted.holds:
                yield f"{name} leads elsewhere"
            return
        if stat.S_IMODE(info.st_mode) != wanted.mode:
            yield f"{name} has the mode {stat.S_IMODE(info.st_mode):o}"
        if wanted.kind == stat.S_IFREG and (self.root / name).read_bytes() != wanted.holds:
            yield f"{name} has other bytes"


def rendered(folder: int, number: int) -> bytes:
    """A file's bytes, made without any template engine."""
    values = {"title": f"d{folder}-f{number}", "shard": str(folder), "port": f"90{number}"}
    return re.sub(r"{{(\w+)}}", lambda found: values[found[1]], TEMPLATE).encode()


def translate(policies: Path) -> None:
    """Write the one template in the languages of those tools that do not read it as it is."""
    shell = policies / "shell.sh"
    shell.write_text(shell.read_text().replace("@TEMPLATE@\n", _with_variables(r"${\1}")))
    header = "<%- | $title, $shard, $port | -%>\n"
    (policies / "puppet/file.epp").write_text(header + _with_variables(r"<%= $\1 %>"))
    (policies / "itamae/file.erb").write_text(_with_variables(r"<%= @\1 %>"))
    of_bundle = policies / "bundlewrap/bundles/w/files/file.j2"
    of_bundle.parent.mkdir()
    of_bundle.write_text(TEMPLATE + "\n")  # Jinja2 drops the last newline there


def _with_variables(written: str) -> str:
    return re.sub(r"{{(\w+)}}", written, TEMPLATE)


def _identity(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_ino, info.st_size, info.st_mtime_ns
