"""The lock file's form: `name==version` with hashes, and nothing that says where to get it.

What uv would also understand, an index, a URL, a folder, another file, is refused: where packages
come from is the machine's setting, and a commit must not change it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyinfra_solo.errors import DataError

_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[A-Za-z0-9,._ -]*\])?==(?P<version>[A-Za-z0-9.!+_-]+)"
)
_HASH = re.compile(r"\s--hash=(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?=\s|$)")


@dataclass(frozen=True)
class Pin:
    """One package of a lock file: its name and version, how many hashes, and its first line's number."""

    name: str
    version: str
    hashes: int
    line: int


def pins(content: bytes, path: Path) -> list[Pin]:
    """Every package of the lock file `content`, read from `path`.

    Raises DataError naming the file and the line, for what is not a pin with hashes, and for a file
    without any.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 at byte {error.start}. Make it again with `uv pip compile --generate-hashes`."
        ) from error
    found = [_pin(words, number, path) for number, words in _logical(text, path)]
    if not found:
        raise DataError(
            f"{path.name} names no package. Make it again with `uv pip compile --generate-hashes`."
        )
    return found


def _pin(words: str, number: int, path: Path) -> Pin:
    requirement = _HASH.sub("", words).partition(";")[0].strip()
    hashes = len(_HASH.findall(words))
    found = _PIN.fullmatch(requirement)
    if not found or "--" in _HASH.sub("", words):
        raise DataError(
            f"{path.name}, line {number}: {requirement[:60]!r} is not `name==version --hash=sha256:…`. "
            "Make the file again with `uv pip compile --generate-hashes`."
        )
    if not hashes:
        raise DataError(
            f"{path.name}, line {number}: {found['name']} has no hash. "
            "Make the file again with `uv pip compile --generate-hashes`."
        )
    return Pin(found["name"], found["version"], hashes, number)


def _logical(text: str, path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their continuations, without comments, each with its first line's number."""
    first, words = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if not words:
            first = number
        if bare.endswith("\\"):
            words += bare[:-1] + " "
            continue
        words += bare
        if words.strip():
            yield first, words.strip()
        words = ""
    if words.strip():
        raise DataError(f"{path.name}, line {first}: the file ends within a line. Write it again, whole.")
