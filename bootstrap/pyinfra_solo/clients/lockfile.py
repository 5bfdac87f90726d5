"""Check a lock file: `name==version` with hashes, and nothing that says where packages come from.

uv would also accept an index, a URL, a folder or another file. These are refused: where packages
come from is the machine's setting, and a commit must not change it.
"""

import re
from pathlib import Path

from pyinfra_solo.errors import DataError

_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9,._ -]*\])?==[A-Za-z0-9.!+_-]+")
_HASH = re.compile(r"\s--hash=(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?=\s|$)")
_COMMENT_OR_END = re.compile(r"((^|(?<=\s))#.*|\s+)$")


def count(content: bytes, path: Path) -> int:
    """Count the packages of the lock file `content`, read from `path`.

    Raises DataError with the file and the line for anything but a pin with hashes, or when there is none.
    """

    def error(problem: str) -> DataError:
        return DataError(f"{path.name}{problem}. Make the file with `uv pip compile --generate-hashes`.")

    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as problem:
        raise error(f" is not UTF-8 at byte {problem.start}") from problem
    text = "\n".join(_COMMENT_OR_END.sub("", line).rstrip() for line in lines)
    found, number = 0, 1
    for logical in re.split(r"(?<!\\)\n", text):
        words = logical.replace("\\\n", " ").strip()
        requirement, hashes = _HASH.subn("", words)
        if words.endswith("\\"):
            raise error(f", line {number}: the file ends within this line")
        if words and ("--" in requirement or not _PIN.fullmatch(requirement.partition(";")[0].strip())):
            raise error(f", line {number}: {requirement[:60]!r} is not `name==version --hash=sha256:...`")
        if words and not hashes:
            raise error(f", line {number}: {requirement.partition('==')[0]} has no hash")
        found += bool(words)
        number += logical.count("\n") + 1
    if not found:
        raise error(" names no package")
    return found
