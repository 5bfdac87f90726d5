"""One deploy.py in pyinfra's hands: what is run, what is told of it, and what never is.

Each test is a working tree with one small role, converged on this machine in the child process that
a boot starts.
"""

import io
import json
import os
import stat
from pathlib import Path

import pytest

from pyinfra_solo import paths
from pyinfra_solo.errors import ConvergeError, DataError, RoleError, SoloError
from pyinfra_solo.report.records import Operation
from pyinfra_solo.run.run import Run
from pyinfra_solo.stations.converge import Changes
from tests.support.line import converged, new_run
from tests.support.machine import use_root
from tests.support.ops_repo import ops, write
from tests.support.programs import is_alive


@pytest.fixture(autouse=True)
def _below_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_root(tmp_path / "machine", monkeypatch)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the role works."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def tree(target: Path, operations: str, **more: str) -> Path:
    """A working tree whose role does `operations`."""
    return write(target.parent / "tree", ops(operations, target, **more))


def failure(root: Path, kind: type[SoloError], **options: object) -> tuple[str, Run]:
    """The message with which a converge fails, and its run."""
    run = new_run()
    with pytest.raises(kind) as raised:
        converged(root, run=run, **options)
    return str(raised.value), run


def names(changes: Changes, *, changed: bool = True) -> list[str]:
    return [_own(operation) for operation in changes.operations if operation.changed == changed]


def _own(operation: Operation) -> str:
    """Its name without the role's, which stands before it."""
    return operation.name.removeprefix("site | ")


def events(run: Run) -> str:
    """Every event of the run, as it was written down."""
    return (paths.STATE / "reports" / f"{run.id}.events").read_text()


FILE = """
    files.put(name="the file says hello", src=StringIO(data.text), dest=f"{data.target}/file", mode="640")
"""


class TestAConverge:
    def test_changes_what_is_not_yet_as_declared_and_nothing_the_second_time(self, target: Path) -> None:
        root = tree(target, FILE + 'files.directory(name="a folder is there", path=f"{data.target}/folder")')
        first = converged(root)
        assert names(first) == ["the file says hello", "a folder is there"]
        assert (target / "file").read_text() == "hello"
        assert stat.S_IMODE((target / "file").stat().st_mode) == 0o640
        second = converged(root)
        assert second.changed == 0
        assert [one.name for one in second.operations] == [one.name for one in first.operations]

    def test_takes_values_from_flags(self, target: Path) -> None:
        converged(tree(target, FILE), flags={"text": "goodbye"})
        assert (target / "file").read_text() == "goodbye"

    def test_runs_operations_one_after_another_so_that_a_fact_sees_what_was_changed_before(
        self, target: Path
    ) -> None:
        """Inside an operation; a fact at a role's top level is read before anything runs."""
        root = tree(
            target,
            """
            files.line(name="a first line", path=f"{data.target}/file", line="one")
            files.line(name="a second line", path=f"{data.target}/file", line="two")
            files.line(name="a first line still", path=f"{data.target}/file", line="one")
            """,
        )
        (target / "file").touch()
        assert names(converged(root), changed=False) == ["a first line still"]
        assert (target / "file").read_text() == "one\ntwo\n"

    def test_runs_what_depends_on_a_change_only_after_one(self, target: Path) -> None:
        root = tree(
            target,
            """
            put = files.put(name="the file is there", src=StringIO("x"), dest=f"{data.target}/file")
            server.shell(name="it was changed", commands=f"echo . >> {data.target}/restarts", _if=put.did_change)
            """,
        )
        assert names(converged(root)) == ["the file is there", "it was changed"]
        assert names(converged(root)) == []
        assert (target / "restarts").read_text() == ".\n"

    def test_runs_nested_operations(self, target: Path) -> None:
        root = tree(
            target,
            """
            def more():
                files.put(name="an inner file", src=StringIO("inner"), dest=f"{data.target}/inner")
                server.shell(name="an inner command", commands=f"echo inner > {data.target}/said")
            python.call(name="more is done", function=more)
            """,
        )
        assert "more is done" in names(converged(root))
        assert (target / "inner").read_text() == "inner"
        assert (target / "said").read_text() == "inner\n"

    def test_keeps_to_global_arguments(self, target: Path) -> None:
        root = tree(
            target,
            """
            server.shell(name="env and folder", commands='echo "$WHO" > said', _env={"WHO": "me"}, _chdir=data.target)
            server.shell(name="stdin", commands=f"cat > {data.target}/stdin", _stdin=["one", "two"])
            server.shell(name="exit status 3 is well", commands="exit 3", _success_exit_codes=[0, 3])
            server.shell(name="a failure is ignored", commands="exit 4", _ignore_errors=True)
            server.shell(
                name="the third try", commands=f'echo . >> {data.target}/tries; test "$(wc -l < {data.target}/tries)" = 3',
                _retries=5, _retry_delay=0,
            )
            server.shell(name="another user", commands=f"id -un > {data.target}/user", _su_user="nobody", _su_shell="/bin/sh")
            """,
        )
        target.chmod(0o777)
        for folder in target.parents:
            if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        done = converged(root)
        assert len(done.operations) == 6
        assert [(target / name).read_text() for name in ("said", "stdin", "tries", "user")] == [
            "me\n", "one\ntwo\n", ".\n.\n.\n", "nobody\n",
        ]  # fmt: skip

    def test_keeps_what_a_role_prints_out_of_the_events(self, target: Path) -> None:
        root = tree(target, 'print(\'{"event": "done"}\')\nserver.shell(name="a fact", commands="true")')
        assert names(converged(root)) == ["a fact"]

    def test_finds_a_role_s_template_and_files_from_the_tree_s_root(self, target: Path) -> None:
        root = tree(
            target,
            """
            files.template(name="a template", src="roles/site/it.j2", dest=f"{data.target}/it", text=data.text)
            files.put(name="a file", src="roles/site/plain", dest=f"{data.target}/plain")
            """,
            **{"roles/site/it.j2": "{{ text }} {{ host.name }}", "roles/site/plain": "plain"},
        )
        converged(root)
        assert (target / "it").read_text() == "hello @local"
        assert (target / "plain").read_text() == "plain"

    def test_keeps_output_that_is_not_utf_8(self, target: Path) -> None:
        """With pyinfra's own connector the line is lost, and all after it."""
        root = tree(
            target, r"""server.shell(name="it fails", commands=r"printf 'caf\351\nthe end\n'; exit 1")"""
        )
        message, run = failure(root, ConvergeError)
        assert run.report.operations[-1].output == ["caf\N{REPLACEMENT CHARACTER}", "the end"]
        assert message == "The operation 'site | it fails' failed: the end"

    def test_sees_a_line_beside_one_that_is_not_utf_8(self, target: Path) -> None:
        root = tree(target, 'files.line(name="a line", path=f"{data.target}/latin", line="wanted")')
        (target / "latin").write_bytes(b"caf\xe9\nwanted\n")
        assert converged(root).changed == 0


class TestAFailure:
    def test_stops_there_with_the_operation_s_last_words(self, target: Path) -> None:
        root = tree(
            target,
            """
            server.shell(name="it works", commands="true")
            server.shell(name="it fails", commands="echo first; echo the reason >&2; exit 7")
            server.shell(name="it is never come to", commands=f"touch {data.target}/after")
            """,
        )
        message, run = failure(root, ConvergeError)
        assert message == "The operation 'site | it fails' failed: the reason"
        assert [(_own(one), one.failed) for one in run.report.operations] == [
            ("it works", False),
            ("it fails", True),
        ]
        assert run.report.operations[-1].output == ["first", "the reason"]
        assert not (target / "after").exists()

    def test_of_a_command_that_says_nothing_is_told_by_pyinfra(self, target: Path) -> None:
        message, _ = failure(tree(target, 'server.shell(name="it fails", commands="exit 7")'), ConvergeError)
        assert message.startswith("The operation 'site | it fails' failed: ")

    def test_by_time_out_names_the_operation_and_how_long_it_had(self, target: Path) -> None:
        root = tree(target, 'server.shell(name="it hangs", commands="echo so far; sleep 60")')
        message, run = failure(root, ConvergeError, operation_seconds=0.3)
        assert message == "The operation 'site | it hangs' failed: took longer than 0.3 s and was ended"
        assert run.report.operations[-1].output == ["so far", "took longer than 0.3 s and was ended"]

    def test_leaves_no_process_of_a_command_that_hung(self, target: Path) -> None:
        root = tree(
            target, 'server.shell(name="it hangs", commands=f"sleep 60 & echo $! > {data.target}/pid; wait")'
        )
        failure(root, ConvergeError, operation_seconds=0.5)
        assert not is_alive(int((target / "pid").read_text()))

    def test_is_not_made_by_a_daemon_that_holds_stdout(self, target: Path) -> None:
        """It is in a session of its own, so it outlives the converge, too."""
        root = tree(
            target,
            'server.shell(name="a daemon is up", commands=f"setsid sh -c \'echo $$ > {data.target}/pid; exec sleep 60\' & '
            'while [ ! -s {data.target}/pid ]; do sleep 0.02; done", _timeout=20)',
        )
        assert names(converged(root)) == ["a daemon is up"]
        os.kill(int((target / "pid").read_text()), 9)

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("deploy.py", "def (\n", "deploy.py failed: invalid syntax (deploy.py:1)"),
            ("deploy.py", "from pyinfra_solo.deploy import roles\nraise ValueError('a bug')\n", "deploy.py failed: ValueError: a bug"),
            ("deploy.py", "import nothing_of_that_name\n", "deploy.py failed: ModuleNotFoundError"),
            ("roles/site/__init__.py", "def site(:\n", "roles/site/__init__.py cannot be loaded"),
            ("roles/site/__init__.py", "1 / 0\n", "roles/site/__init__.py cannot be loaded: division by zero"),
        ],
    )  # fmt: skip
    def test_of_the_code_itself_can_be_mended_by_a_commit_so_it_is_tried_again(
        self, target: Path, name: str, text: str, says: str
    ) -> None:
        message, run = failure(tree(target, FILE, **{name: text}), ConvergeError)
        assert says in message
        assert not run.touched()
        assert list(target.iterdir()) == []

    def test_without_a_deploy_py_says_what_to_commit(self, target: Path) -> None:
        root = tree(target, FILE)
        (root / "deploy.py").unlink()
        message, _ = failure(root, ConvergeError)
        assert message == f"{root}/deploy.py is not in the ops repo. Commit it."

    def test_of_a_role_that_declares_nothing_is_data(self, target: Path) -> None:
        message, _ = failure(tree(target, "", **{"roles/site/__init__.py": "x = 1\n"}), DataError)
        assert "declares no role 'site'" in message

    def test_of_a_role_that_needs_one_that_is_not_there(self, target: Path) -> None:
        root = tree(target, FILE)
        module = root / "roles/site/__init__.py"
        module.write_text(module.read_text().replace("@role(", '@role(needs=["bse"], '))
        message, _ = failure(root, RoleError)
        assert message.startswith("There is no role 'bse'.")

    def test_of_an_operation_that_raises_names_it(self, target: Path) -> None:
        root = tree(
            target,
            """
            def broken():
                raise RuntimeError("a bug in a callback")
            python.call(name="a callback", function=broken)
            """,
        )
        message, run = failure(root, ConvergeError)
        assert "'site | a callback'" in message
        assert "a bug in a callback" in message
        assert run.report.operations[-1].failed

    def test_of_a_nested_operation_names_the_outer_one(self, target: Path) -> None:
        root = tree(
            target,
            """
            def more():
                server.shell(name="the inner one", commands="echo inner words; exit 1")
            python.call(name="the outer one", function=more)
            """,
        )
        message, run = failure(root, ConvergeError)
        assert "'site | the outer one'" in message
        assert run.report.operations[-1].failed

    @pytest.mark.parametrize(
        ("text", "mode"), [("{{ absent }}", "converge"), ("{% if %}", "plan"), ("{{ absent }}", "blank")]
    )
    def test_of_a_template_is_data_and_names_it(self, target: Path, text: str, mode: str) -> None:
        """Only a commit can mend it, so trying again is no use."""
        root = tree(
            target,
            'files.template(name="a template", src="roles/site/it.j2", dest=f"{data.target}/it")',
            **{"roles/site/it.j2": text},
        )
        message, _ = failure(root, DataError, mode=mode)
        assert "roles/site/it.j2" in message

    def test_of_a_missing_local_file_names_it(self, target: Path) -> None:
        root = tree(target, 'files.put(name="a file", src="roles/site/absent", dest=f"{data.target}/it")')
        message, _ = failure(root, ConvergeError)
        assert "roles/site/absent" in message


class TestASecret:
    """A value of the type Secret; hunter2 here."""

    OPERATIONS = """
        server.shell(commands=f"echo {data.token}; cat /proc/[0-9]*/cmdline | tr '\\\\0' ' ' > {data.target}/argvs")
        files.put(src=StringIO(f"token = {data.token}"), dest=f"{data.target}/token")
        files.line(path=f"{data.target}/line", line=f"token = {data.token}")
        server.shell(name=f"named with {data.token}", commands="true", _env={"TOKEN": data.token})
        server.shell(name="it fails", commands=f"echo the token is {data.token} >&2; exit 1")
    """

    @pytest.fixture
    def root(self, target: Path) -> Path:
        return tree(target, self.OPERATIONS)

    def test_is_in_no_event_no_output_no_message_and_no_argv(self, root: Path, target: Path) -> None:
        """Any user of the machine may read /proc/*/cmdline."""
        message, run = failure(root, ConvergeError, flags={"token": "hunter2"})
        assert (target / "token").read_text() == "token = hunter2"
        assert message == "The operation 'site | it fails' failed: the token is [redacted]"
        assert run.report.operations[-1].output == ["the token is [redacted]"]
        assert "named with [redacted]" in events(run)
        argvs = (target / "argvs").read_text(errors="replace")
        assert "pyinfra_solo.executor" in argvs
        assert "hunter2" not in argvs
        assert "hunter2" not in events(run) + message + json.dumps(
            [one.name for one in run.report.operations]
        )

    @pytest.mark.parametrize("mode", ["plan", "blank"])
    def test_is_in_no_plan(self, root: Path, target: Path, mode: str) -> None:
        changes = converged(root, mode=mode, flags={"token": "hunter2"})
        text = "\n".join(line for one in changes.operations for line in (one.name, *one.diff))
        assert "+token = [redacted]" in text
        assert "hunter2" not in text
        assert list(target.iterdir()) == []

    def test_is_not_said_aloud_when_a_role_cannot_be_declared(self, target: Path) -> None:
        root = tree(target, 'raise ValueError(f"the token {data.token} is too short")')
        heard = io.StringIO()
        run = new_run(output=heard)
        with pytest.raises(ConvergeError, match=r"the token \[redacted\] is too short"):
            converged(root, run=run, flags={"token": "hunter2"})
        assert "hunter2" not in heard.getvalue()


def test_an_operation_without_a_name_shows_none_of_its_arguments(target: Path) -> None:
    """pyinfra names it after its arguments, and a password may be one."""
    root = tree(
        target,
        """
        server.shell(commands="true # swordfish")
        files.put(src=StringIO("swordfish"), dest=f"{data.target}/file")
        """,
    )
    run = new_run()
    changes = converged(root, run=run)
    assert [one.name for one in changes.operations] == ["site | server.shell", "site | files.put"]
    assert "swordfish" not in events(run)


class TestAPlan:
    OPERATIONS = """
        files.put(name="a text", src=StringIO("one\\ntwo\\n"), dest=f"{data.target}/text")
        files.put(name="a binary", src=StringIO("\\0"), dest=f"{data.target}/binary")
        files.directory(name="a folder", path=f"{data.target}/folder")
        put = files.put(name="a config", src=StringIO("x"), dest=f"{data.target}/config")
        server.shell(name="it is reread", commands="echo reread", _if=put.did_change)
        server.shell(name="never", commands="false", _if=lambda: False)
    """

    @pytest.fixture
    def root(self, target: Path) -> Path:
        return tree(target, self.OPERATIONS)

    def plan(self, root: Path, mode: str = "plan") -> dict[str, Operation]:
        return {_own(one): one for one in converged(root, mode=mode).operations}

    def test_shows_a_diff_of_every_file_and_every_command(self, root: Path, target: Path) -> None:
        (target / "text").write_text("one\nthree\n")
        plan = self.plan(root)
        assert plan["a text"].diff[:2] == [f"--- {target}/text", f"+++ {target}/text"]
        assert plan["a text"].diff[3:] == [" one", "-three", "+two"]
        assert plan["a binary"].diff == [f"Binary file {target}/binary differs"]
        assert plan["a folder"].diff == [f"$ mkdir -p {target}/folder"]
        assert plan["a config"].diff[0] == "--- /dev/null"
        assert (target / "text").read_text() == "one\nthree\n"
        assert [path.name for path in target.iterdir()] == ["text"]

    def test_plans_what_depends_on_a_change(self, root: Path, target: Path) -> None:
        assert self.plan(root)["it is reread"].diff == ["$ echo reread"]
        assert not self.plan(root)["never"].changed
        (target / "config").write_text("x")
        assert not self.plan(root)["it is reread"].changed

    def test_of_a_blank_machine_sees_nothing_of_this_one(self, root: Path, target: Path) -> None:
        (target / "text").write_text("one\ntwo\n")
        assert not self.plan(root)["a text"].changed
        assert self.plan(root, "blank")["a text"].changed

    def test_reads_a_file_that_is_put_as_if_it_were_absent_from_a_blank_machine(
        self, root: Path, target: Path
    ) -> None:
        (target / "text").write_text("one\nthree\n")
        assert self.plan(root, "blank")["a text"].diff[1] == "--- /dev/null"


def test_an_engine_of_another_protocol_is_refused(target: Path) -> None:
    """The engine in the image may be older than the checkout's."""
    root = tree(target, FILE)
    (root / "bootstrap").unlink()
    engine = root / "bootstrap/pyinfra_solo"
    engine.mkdir(parents=True)
    ours = Path(__file__).parents[2] / "bootstrap/pyinfra_solo"
    for path in ours.glob("*"):
        if path.name not in ("executor", "__pycache__"):
            (engine / path.name).symlink_to(path)
    (engine / "executor").mkdir()
    for path in (ours / "executor").glob("*.py"):
        (engine / "executor" / path.name).write_text(path.read_text().replace("PROTOCOL = 1", "PROTOCOL = 2"))
    message, _ = failure(root, ConvergeError)
    assert message == "The engines disagree: protocol 1 was asked, 2 is spoken. Bake a new image."
