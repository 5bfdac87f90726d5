"""A bug of the ops repo names file and line, its traceback is in the journal, and no exit status hides it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.line import FILE, Line
from tests.support.ops_repo import DEPLOY, site

INIT = "roles/site/__init__.py"
GROUP_DATA = "inventories/group_data/all.py"
BUG = "def inner():\n    return [][1]\n"


def failed(
    line: Line, operations: str = FILE, code: int = 1, more: dict[str, str] | None = None
) -> tuple[str, str]:
    """Boot; return the last line of stderr, which is the reason, and all of it, which is the journal."""
    line.commit(operations, more=more)
    done = line.machine.solo("boot").expect(code)
    assert not line.machine.in_service
    return done.stderr.splitlines()[-1], done.stderr


def place(line: Line, text: str) -> str:
    """Return FILE:LINE of the line of the role that holds `text`."""
    done = line.machine.command(["git", "--git-dir", str(line.repository.path), "show", f"main:{INIT}"])
    number = next(number for number, one in enumerate(done.stdout.splitlines(), 1) if text in one)
    return f"{INIT}:{number}"


def test_bug_in_a_role_has_its_line_and_its_traceback(line: Line) -> None:
    """It said `deploy.py failed: IndexError: list index out of range`, and nothing else anywhere."""
    reason, journal = failed(line, "part = 'a b'.split()[2]")
    assert reason.endswith(f"deploy.py failed: IndexError: list index out of range ({place(line, 'part =')})")
    assert "converge: Traceback (most recent call last):" in journal
    assert "converge:     part = 'a b'.split()[2]" in journal


def test_bug_in_a_callback_has_its_line_and_its_traceback(line: Line) -> None:
    """pyinfra catches it, and logs it without a place."""
    reason, journal = failed(
        line, "def call():\n    return {}['port']\npython.call(name='it is called', function=call)"
    )
    assert reason.endswith(
        f"the operation 'site | it is called' failed: KeyError: 'port' ({place(line, 'return {}')})"
    )
    assert "converge:     return {}['port']" in journal


def test_secret_in_a_traceback_is_redacted(line: Line) -> None:
    _, journal = failed(
        line, "raise ValueError(f'{data.token} is too short')", more={GROUP_DATA: "token = 'swordfish'\n"}
    )
    assert "converge: ValueError: [redacted] is too short" in journal
    assert "swordfish" not in journal


def test_terminal_escape_in_a_traceback_is_printable(line: Line) -> None:
    _, journal = failed(line, "raise ValueError('\\x1b[2J\\x9b1A')")
    assert "converge: ValueError: \\x1b[2J\\x9b1A" in journal
    assert "\x1b" not in journal


@pytest.mark.parametrize(
    ("more", "reason", "code"),
    [
        ({INIT: "x = {}\nx['a']\n"}, "roles/site/__init__.py cannot be loaded: KeyError: 'a' (roles/site/__init__.py:2).", 1),
        ({"roles/app.py": BUG + "inner()\n", INIT: "import roles.app\n"}, "cannot be loaded: IndexError: list index out of range (roles/app.py:2).", 1),
        ({"roles/app.py": "def (\n", INIT: "import roles.app\n"}, "cannot be loaded: invalid syntax (roles/app.py:1).", 1),
        ({GROUP_DATA: BUG + "text = inner()\n"}, "inventories/group_data/all.py cannot be read: IndexError: list index out of range (inventories/group_data/all.py:2).", 13),
    ],
    ids=["role", "module of roles", "syntax", "group data"],
)  # fmt: skip
def test_bug_in_any_file_names_that_file_and_line(
    line: Line, more: dict[str, str], reason: str, code: int
) -> None:
    found, _ = failed(line, code=code, more=more)
    assert reason in found


def test_bug_in_healthy_names_its_line(line: Line) -> None:
    line.commit(FILE, "[][1]")
    done = line.machine.solo("boot").expect(13)
    assert (
        f"`healthy` of {INIT} failed: IndexError: list index out of range ({place(line, '[][1]')})."
        in done.stderr
    )


class TestExitOfARole:
    """sys.exit(0) in code of the ops repo is a failure: exit status 0 means converged and judged."""

    @pytest.mark.parametrize("command", ["run", "plan"])
    @pytest.mark.parametrize(
        "operations",
        [
            "import sys\nsys.exit(0)",
            "import os\nos._exit(0)",
            "import sys\npython.call(name='it ends', function=lambda: sys.exit(0))",
            "import os\npython.call(name='it ends', function=lambda: os._exit(0))",
            "import sys\nserver.shell(name='it ends', commands=['true'], _if=lambda: sys.exit(0))",
            "import sys\nraise KeyboardInterrupt",
            "import sys\nraise BaseException('x')",
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        ],
        ids=["role", "os._exit", "callback", "callback's os._exit", "condition", "interrupt", "base", "kill"],
    )  # fmt: skip
    def test_run_whose_role_exits_is_a_failure(self, line: Line, operations: str, command: str) -> None:
        line.commit(operations)
        done = line.machine.solo(command)
        calls_nothing = command == "plan" and "python.call" in operations
        assert done.code not in (() if calls_nothing else (0, 2)), done.stderr
        assert not line.machine.in_service

    @pytest.mark.parametrize(
        ("operations", "more", "reason"),
        [
            ("import sys\nsys.exit(0)", {}, "deploy.py failed: it called sys.exit(0) (roles/site/__init__.py:26). Raise an error instead."),
            ("pass", {"deploy.py": f"import sys\n{DEPLOY}sys.exit(0)\n"}, "deploy.py failed: it called sys.exit(0) (deploy.py:"),
            ("pass", {GROUP_DATA: "import sys\nsys.exit(0)\n"}, "cannot be read: it called sys.exit(0) (inventories/group_data/all.py:2)"),
            ("pass", {INIT: "import sys\nsys.exit()\n"}, "cannot be loaded: it called sys.exit(None) (roles/site/__init__.py:2)"),
            ("pass", {INIT: site("pass", Path("/"), "exit(0)")}, "`healthy` of roles/site/__init__.py failed: it called sys.exit(0) ("),
        ],
        ids=["role", "deploy.py", "group data", "import", "healthy"],
    )  # fmt: skip
    def test_message_names_where_it_exits(
        self, line: Line, operations: str, more: dict[str, str], reason: str
    ) -> None:
        found, _ = failed(
            line, operations, code=13 if reason.startswith(("cannot be read", "`healthy`")) else 1, more=more
        )
        assert reason in found
