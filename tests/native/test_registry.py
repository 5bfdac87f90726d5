"""Facts are answered in the process as long as pyinfra means by them what it meant; all others by a shell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyinfra.facts import deb, files, server, systemd

from pyinfra_solo.native import UNKNOWN
from pyinfra_solo.native import registry as known
from pyinfra_solo.native.expected import EXPECTED
from tests.support import native_expected
from tests.support.both_ways import our_state, without
from tests.support.pyinfra_api import stock_state, within

if TYPE_CHECKING:
    from pyinfra.api import Host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """pyinfra's own."""
    with within(stock_state()) as stock:
        yield stock


@pytest.mark.parametrize(
    ("fact", "wrong"),
    [(files.File, {}), (files.File, {"path": "/", "more": 1}), (files.File, {"path": None}), (files.File, {"path": b"/"}), (files.File, {"kind": "file", "path": "/"}),
     (server.Which, {"command": None}), (files.FindInFile, {"path": "/etc/passwd", "pattern": None}), (server.Kernel, {"more": 1}),
     (systemd.SystemdStatus, {"more": None}), (deb.DebPackages, {"more": 1})],
)  # fmt: skip
def test_a_question_that_is_wrong_is_left_to_pyinfra(fact: type[Any], wrong: Mapping[str, Any]) -> None:
    """It fails there as it always did."""
    answer = known.answer_to(fact)
    assert answer
    assert answer(**wrong) is UNKNOWN


def test_a_fact_whose_command_has_changed_takes_the_ordinary_road(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does one that makes something else of the same output."""

    class File(files.File):
        def command(self, path: str) -> str:
            return f"stat {path}"

    class Link(files.Link):
        def process(self, output: list[str]) -> Any:
            return super().process(output) or {}

    class Directory(files.Directory):
        def check_preconditions(self, *_arguments: Any) -> str | None:
            return "never"

    monkeypatch.setattr(known, "changed", [])
    for fact in (File, Link, Directory):
        fact.__module__ = "pyinfra.facts.files"
        monkeypatch.setattr(files, fact.__name__, fact)
        assert known.answer_to(fact) is None
        assert known.changed[-1] == f"pyinfra.facts.files.{fact.__name__}"


def test_a_fact_of_a_role_s_own_takes_the_ordinary_road() -> None:
    class File(files.File):
        """Another one."""

    assert known.answer_to(File) is None
    assert known.answer_to(files.Block) is None


def test_what_is_expected_of_pyinfra_is_what_this_pyinfra_means() -> None:
    """When this fails, pyinfra has changed: compare the facts' commands and `process`, correct the answers,
    and write what is expected anew by `python -m tests.support.native_expected`."""
    assert native_expected.meanings() == EXPECTED
    assert known.changed == []


def test_a_host_of_ours_says_what_pyinfras_own_says(host: Host, tmp_path: Path) -> None:
    """Through get_fact: arguments of an operation, and a fact that is asked as another user, included."""
    (tmp_path / "file").write_text("text\n")
    questions: list[tuple[type[Any], dict[str, Any]]] = [
        (files.File, {"path": str(tmp_path / "file")}),
        (files.FileContents, {"path": str(tmp_path / "file")}),
        (files.Sha1File, {"path": "file", "_chdir": str(tmp_path)}),
        (files.FileContents, {"path": str(tmp_path / "file"), "_su_user": "nobody", "_su_shell": "/bin/sh"}),
        (server.Home, {"user": "nobody"}),
    ]
    for native in (True, False):
        with within(our_state(native=native)) as ours:
            for fact, asked in questions:
                assert without(ours.get_fact(fact, **asked), ("atime",)) == without(
                    host.get_fact(fact, **asked), ("atime",)
                )


@pytest.mark.parametrize(
    ("fact", "wrong"), [(files.File, {"paths": "/"}), (files.File, {}), (server.Home, {"user": "a b"})]
)
def test_a_question_that_fails_fails_as_it_does_in_pyinfra(
    fact: type[Any], wrong: dict[str, Any], host: Host
) -> None:
    with pytest.raises(Exception, match=r".") as theirs:
        host.get_fact(fact, **wrong)
    with within(our_state(native=True)) as mine, pytest.raises(theirs.type) as ours:
        mine.get_fact(fact, **wrong)
    assert str(ours.value) == str(theirs.value)
