"""What a fact says of files, answered in the process, is what pyinfra's own way says, through a shell."""

# Names that a Path would not keep as they are.
# ruff: noqa: PTH101, PTH102, PTH123, PTH211

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyinfra.facts import files

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native import registry as known
from tests.support.both_ways import ACL_FOR_NOBODY, FEW, Asked, with_flag
from tests.support.pyinfra_api import stock_state, within

if TYPE_CHECKING:
    from pyinfra.api import Host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """pyinfra's own."""
    with within(stock_state()) as stock:
        yield stock


@pytest.fixture
def asked(host: Host) -> Asked:
    return Asked(host)


_ODD = [
    " ",
    "'",
    '"',
    "\\",
    "\n",
    "\t",
    "-",
    "é",
    "\u2028",
    "\udce9",
    "$",
    "`",
    "*",
    "~",
    "%s",
    "{0}",
    "&",
    ";",
    " -> ",
]
_LIKE_STAT = " group=b mode=-rwxrwxrwx atime=1 mtime=2 ctime=3 size=4 'x'"
_PARTS = st.one_of(st.sampled_from("abc.X0"), st.sampled_from([*_ODD, _LIKE_STAT]))
_PLAIN = st.text("abcXYZ019 ._-+@=,:#", min_size=1, max_size=12)
NAMES = (
    st.one_of(_PLAIN, st.lists(_PARTS, min_size=1, max_size=6).map("".join))
    .filter(lambda name: name.strip(".") != "")
    .filter(lambda name: len(os.fsencode(name)) < 200)
)
KINDS = st.sampled_from(["file", "folder", "link", "fifo", "socket", "absent"])
TIMES = st.integers(-(2**31), 2**33).flatmap(
    lambda second: st.integers(0, 999_999_999).map(lambda rest: second * 10**9 + rest)
)
OWNERS = st.sampled_from([0, 0, 1, 8, 65534, 54321, 2**31])
ENDS = st.sampled_from(["", "", "", "", "/", "/x", "/.", "/../."])


def put_there(
    path: str, kind: str, target: str, mode: int, owner: int, group: int, times: tuple[int, int]
) -> None:
    if kind == "file":
        with open(path, "wb") as opened:
            opened.truncate(mode * mode * 10_000)  # up to 160 GB of nothing
    elif kind == "folder":
        os.mkdir(path)
    elif kind == "link":
        os.symlink(target, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    if kind != "absent":
        os.chown(path, owner, group, follow_symlinks=False)
        if kind != "link":
            os.chmod(path, mode)
        os.utime(path, ns=times, follow_symlinks=False)


@pytest.mark.parametrize(
    ("fact", "own"),
    [(files.File, "file"), (files.Directory, "folder"), (files.Link, "link"), (files.Socket, "socket")],
)
def test_what_is_there_is_told_as_stat_tells_it(
    fact: type[Any], own: str, asked: Asked, tmp_path: Path
) -> None:
    """Names and targets of all bytes; every kind, mode, owner and time that the file system keeps."""
    number = count()

    @settings(FEW, max_examples=90)
    @given(NAMES, st.one_of(st.just(own), KINDS), st.one_of(NAMES, st.sampled_from([".", "..", "/", "/nowhere", "/etc/passwd"])),
           st.integers(0, 0o7777), OWNERS, OWNERS, st.tuples(TIMES, TIMES), ENDS)  # fmt: skip
    @example("a", "file", "a", 0o7777, 0, 0, (-1, -1_500_000_000), "")
    @example("a" + _LIKE_STAT, "file", "a", 0o644, 0, 0, (0, 0), "")
    @example("a", "link", "a" + _LIKE_STAT, 0, 0, 0, (0, 0), "")
    @example("loop", "link", "loop", 0, 0, 0, (0, 0), "")
    @example("loop", "link", "loop", 0, 0, 0, (0, 0), "/x")
    def holds(
        name: str, kind: str, target: str, mode: int, owner: int, group: int, times: tuple[int, int], end: str
    ) -> None:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        path = f"{folder}/{name}"
        put_there(path, kind, target, mode, owner, group, times)
        asked.same(fact, path=path + end, but=("atime",) if kind == "link" else ())

    holds()
    assert asked.share() > 0.3, asked.count
    assert asked.count[f"{fact.__name__}: something"] > 3, asked.count
    assert asked.count[f"{fact.__name__}: None"] > 3, asked.count
    assert asked.count[f"{fact.__name__}: False"] > 3, asked.count


def test_attributes_and_flags_change_nothing(asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    os.setxattr(file, "system.posix_acl_access", ACL_FOR_NOBODY)
    freed = with_flag("i", file)
    try:
        told = asked.same(files.File, path=str(file))
        asked.same(files.Sha1File, path=str(file))
    finally:
        freed()
    assert told["mode"] == 770


@pytest.mark.parametrize(
    "path", ["", "relative", "~/x", "//etc/passwd", "/etc/../etc/passwd", "/etc/passwd/", "/", "/etc/mtab", "/dev/null",
             "/proc/self", "/etc/../proc/self/exe", "//dev/fd", "/" + "x" * 300, "/etc/" + "x/" * 3000]
)  # fmt: skip
@pytest.mark.parametrize("fact", [files.File, files.Link, files.Sha1File, files.FileContents])
def test_a_path_that_is_not_plain_means_the_same(fact: type[Any], path: str, asked: Asked) -> None:
    asked.same(fact, path=path, but=("atime",))


DIGESTS = [files.Md5File, files.Sha1File, files.Sha256File, files.Sha384File]
BYTES: st.SearchStrategy[bytes] = st.lists(
    st.sampled_from([b"a", b"line\n", b"\n", b"\r", b"\r\n", b"\x0b", b"\x0c", b"\x1c", b"\x85", "\u2028".encode(), "é".encode(), b"\xff", b"\0", b"x" * 70_000]),
    max_size=6,
).map(b"".join)  # fmt: skip


def test_contents_and_digests_are_those_of_the_file(asked: Asked, tmp_path: Path) -> None:
    """Of bytes that are not UTF-8 there is no answer here: pyinfra's own reader stops in the middle."""
    number = count()

    @settings(FEW, max_examples=60)
    @given(
        NAMES,
        st.sampled_from(["file", "file", "file", "link", "folder", "absent"]),
        BYTES,
        ENDS,
        st.sampled_from(DIGESTS),
    )
    @example("a b", "file", b"", "", files.Sha1File)
    @example("a b", "file", b"\n", "", files.Md5File)
    @example("a", "file", b"a\rb\x0bc\n", "", files.Md5File)
    def holds(name: str, kind: str, data: bytes, end: str, digest: type[Any]) -> None:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        path = f"{folder}/{name}"
        if kind == "file":
            (folder / name).write_bytes(data)
        elif kind == "link":
            (folder / "real").write_bytes(data)
            os.symlink("real", path)
        elif kind == "folder":
            (folder / name).mkdir()
        asked.same(digest, path=path + end)
        asked.same(files.FileContents, path=path + end)

    holds()
    assert asked.share() > 0.3, asked.count
    assert asked.count["FileContents: something"] > 3, asked.count


def test_a_line_that_is_pyinfras_own_sign_is_taken_for_it(asked: Asked, tmp_path: Path) -> None:
    """Here as there."""
    file = tmp_path / "file"
    file.write_text(f"__pyinfra_missing_{file}\nmore\n")
    assert asked.same(files.FileContents, path=str(file)) is None
    file.write_text(f"__pyinfra_exists_{file}\n__pyinfra\n")
    assert asked.same(files.FindInFile, path=str(file), pattern="__pyinfra.*") == []


def test_a_large_file_is_left_to_a_child_that_a_time_out_can_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as opened:
        opened.truncate(2**40)
    answer = known.answer_to(files.Sha1File)
    assert answer
    assert answer(path=str(file)) is UNKNOWN


_ATOMS = st.sampled_from(
    [*"ab c.*^$\\[]{}()+?|/-#'\"=~&<>_0", r"\.", r"\*", r"\/", r"\[", r"\]", r"\^", r"\$", r"\{", r"\(", r"\|", r"\+", r"\w", r"\<", "[ab]", ".*", "é", "\n"]
)  # fmt: skip
PATTERNS = st.builds(
    lambda head, atoms, tail: head + "".join(atoms) + tail,
    st.sampled_from(["", "^", "^.*"]),
    st.lists(_ATOMS, max_size=5),
    st.sampled_from(["", "$", ".*$"]),
)
TEXTS = st.lists(st.text("ab c.*^$\\[]{}()+?|/-#'\"=~&<>_0w", max_size=6), max_size=6).map("\n".join)


def test_what_is_found_in_a_file_is_what_grep_finds(asked: Asked, tmp_path: Path) -> None:
    file = tmp_path / "file"

    @settings(FEW, max_examples=350)
    @given(PATTERNS, TEXTS, st.sampled_from(["", "\n", "\n", "\r\n", "\0", "é\n"]))
    @example("", "\n\n", "")
    @example("^$", "a\n\nb", "\n")
    @example(r"^a\$", "a$b", "\n")
    @example(r"a\\$", "a\\", "\n")
    @example("^*a", "*a", "\n")
    @example("$", "", "")
    def holds(pattern: str, text: str, end: str) -> None:
        file.write_text(text + end, newline="")
        asked.same(files.FindInFile, path=str(file), pattern=pattern)

    holds()
    assert asked.share() > 0.2, asked.count
    assert asked.count["FindInFile: something"] > 10, asked.count
    assert asked.count["FindInFile: []"] > 10, asked.count


def test_what_is_found_where_no_file_is(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "nowhere").symlink_to("absent")
    for name in ("absent", "nowhere", "", "absent/x"):
        asked.same(files.FindInFile, path=f"{tmp_path}/{name}", pattern="a")
    assert asked.count["answered"] > 0


def test_a_pattern_on_a_long_line_is_left_to_grep(tmp_path: Path) -> None:
    """Python's search may take the square of a line's length."""
    (tmp_path / "file").write_text("a" * 100_000)
    answer = known.answer_to(files.FindInFile)
    assert answer
    assert answer(path=str(tmp_path / "file"), pattern=".*.*b") is UNKNOWN


def test_a_socket_that_listens_is_a_socket(asked: Asked, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        assert asked.same(files.Socket, path=str(tmp_path / "s"))
