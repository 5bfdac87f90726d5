"""A command with any global arguments ends as it does by pyinfra's own connector.

Differences on purpose: the shell says `eval:` in messages about the text itself; an exit code may name a
signal in both forms; a command may leave its stdin unread. tests/executor/test_connector.py has more.
"""

import re
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyinfra.api import HiddenValue, Host, StringCommand

from tests.support import both_ways as ways
from tests.support.pyinfra_api import pyinfra_state, within

ABSENT = object()
LINES = st.sampled_from(
    ['echo "$PWD|$A|$0|$#|$-|$LINENO"', "pwd -P", "cat", "read x; echo $x", "exit 3", "kill -9 $$", "kill -TERM $$",
     "no-such-program", "false", "true", "return 4", "cd no/such", "echo 'it'\"'\"'s'", "echo é\u2028\u0081\u0088", "trap 'echo bye' EXIT",
     "set -e", "set -u; echo $unset", "if then", "echo 'unclosed", "echo ${X?is not set}", "(exit 5)", "echo a; echo b >&2",
     "alias hi='echo hi'\nhi", "cat <<END\n$A $HOME\nEND", "export A=other; sh -c 'echo $A'", "readonly A; A=2",
     "echo ${pyinfra_solo_script-none}; env >env; grep -c script env",
     "x=$(false) || echo $?", "# a comment", "echo \\\\", "sleep 0 & wait", "f() { return 6; }; f", "echo ${BASH_VERSION:+bash}", "exec true",
     "exec cat", "printf '%s\\n' \"$@\" \"$*\"", "set -- one two; echo $#", "command -v sh"]
)  # fmt: skip
SCRIPTS = st.lists(
    st.tuples(st.sampled_from(["\n", "; ", " && ", " || "]), LINES), min_size=1, max_size=4
).map(lambda parts: "".join(f"{joint}{line}" for joint, line in parts).lstrip("\n;&| "))
ENVIRONMENTS = st.sampled_from(
    [ABSENT, {}, {"A": "b  c"}, {"A": HiddenValue("hidden")}, {"A": 3}, {"A": "it's $(id) \\ \n"}, {"PATH": "/nowhere"}, {"1a": "x"},
     {"HOME": "/x", "A": ""}]
)  # fmt: skip
FOLDERS = st.sampled_from(
    [ABSENT, None, "", "d", "{}/d", "{}/to-d", "{}/to-d/..", "to-d", "{}/no such", "{}/a b", "-", "{}/f"]
)
SHELLS = st.sampled_from(
    [
        ABSENT,
        ABSENT,
        "sh",
        "bash",
        "/bin/bash",
        "bash -e",
        "/usr/bin/env bash",
        "sh -u",
        "no-such-shell",
        None,
    ]
)
STDINS = st.sampled_from(
    [ABSENT, None, "", "x", "x\n", "a\nb", ["a", "b\n", "", "c\n\n"], ("one",), [], "file"]
)
CODES = st.sampled_from([ABSENT, None, [0], [3], [0, 127], [137, 143], [1, 2, 4]])

OURS_ALONE = re.compile("eval: |-c: |unset pyinfra_solo_script; ")
"""What a shell's message about the text itself may say."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Ours, and pyinfra's own."""
    with within(ways.our_state(native=True)) as ours, within(pyinfra_state()) as theirs:
        yield ours, theirs


def result(host: Host, script: str, arguments: dict[str, Any]) -> tuple[bool, list[str], list[str]]:
    given = {key: value for key, value in arguments.items() if value is not ABSENT}
    if given.get("_stdin") == "file":
        given["_stdin"] = StringIO("from\na file")
    success, output = host.run_shell_command(StringCommand(script), **given)
    messages = [OURS_ALONE.sub("", line) for line in output.stderr_lines]
    return success, output.stdout_lines, messages


def test_any_command_ends_alike(
    hosts: tuple[Host, Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = ways.plant(tmp_path / "root")
    monkeypatch.chdir(root)
    monkeypatch.setenv("OLDPWD", str(root))  # for `cd -`: a line writes a file where it is
    counted = Counter[bool]()

    @settings(ways.FEW, max_examples=250)
    @given(SCRIPTS, ENVIRONMENTS, FOLDERS, SHELLS, STDINS, CODES)
    @example("exit 3", {"PATH": "/nowhere"}, "{}/to-d", "bash -e", "x", [3])
    def holds(script: str, env: Any, folder: Any, shell: Any, stdin: Any, codes: Any) -> None:
        if shell is None and "kill" in script:
            return  # a difference on purpose: there pyinfra gets -9, and no message
        folder = folder.format(tmp_path / "root") if isinstance(folder, str) else folder
        arguments = {
            "_env": env, "_chdir": folder, "_shell_executable": shell, "_stdin": stdin, "_success_exit_codes": codes
        }  # fmt: skip
        try:
            theirs = result(hosts[1], script, arguments)
        except BrokenPipeError:  # the command has not read its stdin: another difference on purpose
            return
        counted.update([theirs[0]])
        assert result(hosts[0], script, arguments) == theirs

    holds()
    assert min(counted[True], counted[False]) > 50, counted
