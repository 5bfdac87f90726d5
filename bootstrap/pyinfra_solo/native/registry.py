"""Which facts are answered here, and whether pyinfra still means by them what it meant.

What an answer here stands in for is a command's text and what pyinfra makes of its output. Both are
compared, when a module of facts is first used, with what they were when the answer was written
(pyinfra 3.10.0). A fact that differs takes the ordinary road, and the run says so.
"""

import hashlib
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pyinfra.api.command import StringCommand
from pyinfra.api.facts import FactBase

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native.expected import EXPECTED

_HERE = "pyinfra_solo.native."
_THEIRS = "pyinfra.facts."

changed: list[str] = []
"""Facts of which pyinfra's commands are not those that are known here."""


def answer_to(fact: type) -> Callable[..., Any] | None:
    """What answers `fact`, with the arguments of its own `command`: a value, or UNKNOWN. None: nothing does."""
    try:
        return _answers[fact]
    except KeyError:
        found = _answers[fact] = _find(fact)
        return found


_answers: dict[type, Callable[..., Any] | None] = {}


def _find(fact: type) -> Callable[..., Any] | None:
    module = fact.__module__
    if module.startswith("pyinfra_solo.") and hasattr(fact, "native"):
        return _careful(fact.native)
    expected = EXPECTED.get(module.removeprefix(_THEIRS), {}) if module.startswith(_THEIRS) else {}
    if fact.__name__ not in expected or getattr(sys.modules[module], fact.__name__, None) is not fact:
        return None
    if not means(fact, expected[fact.__name__]):
        changed.append(f"{module}.{fact.__name__}")
        return None
    ours = import_module(_HERE + module.removeprefix(_THEIRS))
    value = getattr(ours, "VALUES", {}).get(fact.__name__)
    if value is not None:
        return _careful(value)
    return _careful(_processed(fact, ours.LINES[fact.__name__]))


def means(fact: type[Any], digest: str) -> bool:
    """Whether the fact's command, and what it makes of some output, have this digest."""
    try:
        return meaning(fact) == digest
    except Exception:  # noqa: BLE001 - another pyinfra may do anything
        return False


def meaning(fact: type[Any]) -> str:
    """A digest of the fact's command for known arguments, and of its values for known output."""
    asked, samples = SAMPLES.get(fact.__name__, ({}, ()))
    said = []
    one = fact()
    command = one.command(**asked) if callable(one.command) else one.command
    said.append(StringCommand(command).get_raw_value())
    said.append(repr((one.default(), one.requires_command(**asked), one.shell_executable)))
    said.append(str(fact.check_preconditions is FactBase.check_preconditions))
    said += [repr(one.process(list(sample))) for sample in samples]
    return hashlib.blake2s("\0".join(said).encode()).hexdigest()[:16]


def _processed(fact: type[Any], lines_of: Callable[..., Any]) -> Callable[..., Any]:
    def value(**asked: Any) -> Any:
        lines = lines_of(**asked)
        if lines is UNKNOWN:
            return UNKNOWN
        one = fact()
        one._kernel = "Linux"  # what `command` of Mounts and KernelModules leaves for `process`
        return one.process(lines) if lines else one.default()

    return value


def _careful(answer: Callable[..., Any]) -> Callable[..., Any]:
    def value(**asked: Any) -> Any:
        try:
            return answer(**asked)
        except Exception:  # noqa: BLE001 - whatever it is, the ordinary road meets it too, and tells of it as pyinfra does
            return UNKNOWN

    return value


_PATH = {"path": "/a/b c"}
_STAT = "user=u group=g mode={}rwxr-x--t atime=1 mtime=2 ctime=-3 size=4 {}"
_STATS = tuple((_STAT.format(kind, "'/a' -> 'b'" if kind == "l" else "'/a'"),) for kind in "-dls")
_DIGESTS = tuple((f"{'a' * digits}  /a/b c",) for digits in (32, 40, 64, 96))
SAMPLES: dict[str, tuple[dict[str, Any], tuple[tuple[str, ...], ...]]] = {
    "File": (_PATH, _STATS),
    "Directory": (_PATH, _STATS),
    "Link": (_PATH, _STATS),
    "Socket": (_PATH, _STATS),
    "Md5File": (_PATH, _DIGESTS),
    "Sha1File": (_PATH, _DIGESTS),
    "Sha256File": (_PATH, _DIGESTS),
    "Sha384File": (_PATH, _DIGESTS),
    "FileContents": (_PATH, (("__pyinfra_missing_/a/b c",), ("x",))),
    "FindInFile": (_PATH | {"pattern": "^x.*$"}, (("__pyinfra_exists_/a/b c",), ("x",))),
    "DebPackages": ({}, (("ii  a:amd64  1.0-1  amd64  text", "hi  b  2  all  text", "rc  c  3  all  text"),)),
    "Which": ({"command": "a b"}, ()),
    "Home": ({"user": "u"}, ()),
    "Sysctl": ({"keys": ["a.b"]}, ()),
    "AuthorizedKeys": ({"user": "u", "path": "/a b"}, ()),
    "SystemdStatus": ({"services": ["a b"]}, ()),
    "SystemdEnabled": ({"services": ["a b"]}, ()),
}
"""Fact -> arguments, and outputs. What `process` makes of lines is pyinfra's own where only lines are answered."""
