"""One deploy.py, converged in the child process that a boot starts: what its operations do and how they fail."""

import os
import stat
from pathlib import Path

import pytest

from pyinfra_solo.errors import ConvergeError, DataError, RoleError
from pyinfra_solo.stations.converge import Changes
from tests.support.line import converged, failed, new_run, working_tree
from tests.support.programs import is_alive

FILE = 'files.put(name="the file", src=StringIO(data.text), dest=f"{data.target}/file", mode="640")\n'


def names(changes: Changes, *, changed: bool = True) -> list[str]:
    return [one.name for one in changes.operations if one.changed == changed]


def test_second_converge_changes_nothing(target: Path) -> None:
    root = working_tree(target, FILE + 'files.directory(name="a folder", path=f"{data.target}/folder")')
    first = converged(root)
    assert names(first) == ["site | the file", "site | a folder"]
    assert (target / "file").read_text() == "hello"
    assert stat.S_IMODE((target / "file").stat().st_mode) == 0o640
    second = converged(root)
    assert names(second) == []
    assert names(second, changed=False) == names(first)


def test_value_of_a_flag_replaces_the_roles_own(target: Path) -> None:
    converged(working_tree(target, FILE), data={"text": "goodbye"})
    assert (target / "file").read_text() == "goodbye"


def test_fact_inside_an_operation_sees_earlier_changes(target: Path) -> None:
    """A fact at a role's top level is gathered before anything runs."""
    root = working_tree(
        target,
        """
        files.line(name="a first line", path=f"{data.target}/file", line="one")
        files.line(name="a second line", path=f"{data.target}/file", line="two")
        files.line(name="the first line", path=f"{data.target}/file", line="one")
        """,
    )
    (target / "file").touch()
    assert names(converged(root), changed=False) == ["site | the first line"]
    assert (target / "file").read_text() == "one\ntwo\n"


def test_operation_with_if_runs_only_after_the_change(target: Path) -> None:
    root = working_tree(
        target,
        """
        put = files.put(name="the file", src=StringIO("x"), dest=f"{data.target}/file")
        server.shell(name="restarted", commands=f"echo . >> {data.target}/restarts", _if=put.did_change)
        """,
    )
    assert names(converged(root)) == ["site | the file", "site | restarted"]
    assert names(converged(root)) == []
    assert (target / "restarts").read_text() == ".\n"


def test_nested_operations_run_inside_the_outer_one(target: Path) -> None:
    root = working_tree(
        target,
        """
        def more():
            files.put(name="an inner file", src=StringIO("inner"), dest=f"{data.target}/inner")
            server.shell(name="an inner command", commands=f"echo inner > {data.target}/output")
        python.call(name="the outer one", function=more)
        """,
    )
    assert names(converged(root)) == ["site | the outer one"]
    assert (target / "inner").read_text() == "inner"
    assert (target / "output").read_text() == "inner\n"


def test_global_arguments_of_pyinfra_are_honoured(target: Path) -> None:
    root = working_tree(
        target,
        """
        server.shell(name="env and folder", commands='echo "$WHO" > env', _env={"WHO": "me"}, _chdir=data.target)
        server.shell(name="stdin", commands=f"cat > {data.target}/stdin", _stdin=["one", "two"])
        server.shell(name="exit status 3 is success", commands="exit 3", _success_exit_codes=[0, 3])
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
    assert len(converged(root).operations) == 6
    assert [(target / name).read_text() for name in ("env", "stdin", "tries", "user")] == [
        "me\n", "one\ntwo\n", ".\n.\n.\n", "nobody\n",
    ]  # fmt: skip


def test_output_of_a_role_on_stdout_is_no_event(target: Path) -> None:
    root = working_tree(target, 'print(\'{"event": "Done"}\')\nserver.shell(name="one", commands="true")')
    assert names(converged(root)) == ["site | one"]


def test_templates_and_files_are_found_from_the_trees_root(target: Path) -> None:
    root = working_tree(
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


def test_output_that_is_not_utf_8_is_kept(target: Path) -> None:
    """With pyinfra's own connector the line is lost, and all after it."""
    root = working_tree(
        target, r"""server.shell(name="it fails", commands=r"printf 'caf\351\nthe end\n'; exit 1")"""
    )
    message, run = failed(root, ConvergeError)
    assert run.report.operations[-1].output == ["caf\N{REPLACEMENT CHARACTER}", "the end"]
    assert message == "The operation 'site | it fails' failed: the end"


def test_line_beside_one_that_is_not_utf_8_is_found(target: Path) -> None:
    root = working_tree(target, 'files.line(name="a line", path=f"{data.target}/latin", line="wanted")')
    (target / "latin").write_bytes(b"caf\xe9\nwanted\n")
    assert converged(root).changed == 0


def test_operation_without_a_name_shows_no_arguments(target: Path) -> None:
    """pyinfra names it after its arguments, and a password may be one."""
    root = working_tree(
        target,
        """
        server.shell(commands="true # swordfish")
        files.put(src=StringIO("swordfish"), dest=f"{data.target}/file")
        """,
    )
    run = new_run()
    assert names(converged(root, run=run)) == ["site | server.shell", "site | files.put"]
    assert run.events_file
    assert "swordfish" not in run.events_file.read_text()


def test_failed_operation_ends_the_converge_with_its_last_line(target: Path) -> None:
    root = working_tree(
        target,
        """
        server.shell(name="it works", commands="true")
        server.shell(name="it fails", commands="echo first; echo the reason >&2; exit 7")
        server.shell(name="it is never run", commands=f"touch {data.target}/after")
        """,
    )
    message, run = failed(root, ConvergeError)
    assert message == "The operation 'site | it fails' failed: the reason"
    assert [(one.name, one.failed) for one in run.report.operations] == [
        ("site | it works", False),
        ("site | it fails", True),
    ]
    assert run.report.operations[-1].output == ["first", "the reason"]
    assert not (target / "after").exists()


def test_failed_command_without_output_names_its_operation(target: Path) -> None:
    message, _ = failed(
        working_tree(target, 'server.shell(name="it fails", commands="exit 7")'), ConvergeError
    )
    assert (
        message
        == "The operation 'site | it fails' failed: `exit` ended with exit status 7 and printed nothing"
    )


def test_command_out_of_time_is_ended_with_its_children(target: Path) -> None:
    command = 'f"echo so far; sleep 60 & echo $! > {data.target}/pid; wait"'
    root = working_tree(target, f'server.shell(name="it hangs", commands={command})')
    message, run = failed(root, ConvergeError, operation_timeout=0.5)
    late = "took longer than 0.5 s and was ended"
    assert message == f"The operation 'site | it hangs' failed: {late}"
    assert run.report.operations[-1].output == ["so far", late]
    assert not is_alive(int((target / "pid").read_text()))


def test_daemon_that_holds_stdout_is_no_failure(target: Path) -> None:
    """It is in a session of its own, so it outlives the converge, too."""
    root = working_tree(
        target,
        'server.shell(name="a daemon", commands=f"setsid sh -c \'echo $$ > {data.target}/pid; exec sleep 60\' & '
        'while [ ! -s {data.target}/pid ]; do sleep 0.02; done", _timeout=20)',
    )
    assert names(converged(root)) == ["site | a daemon"]
    os.kill(int((target / "pid").read_text()), 9)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("deploy.py", "def (\n", "deploy.py failed: invalid syntax (deploy.py:1)"),
        ("deploy.py", "from pyinfra_solo.deploy import roles\nraise ValueError('a bug')\n", "deploy.py failed: ValueError: a bug"),
        ("deploy.py", "import nothing_of_that_name\n", "deploy.py failed: ModuleNotFoundError"),
        ("roles/site/__init__.py", "def site(:\n", "roles/site/__init__.py cannot be loaded"),
        ("roles/site/__init__.py", "1 / 0\n", "roles/site/__init__.py cannot be loaded: ZeroDivisionError: division by zero (roles/site/__init__.py:1). Correct it"),
    ],
)  # fmt: skip
def test_bug_in_the_ops_repo_is_an_error_that_is_retried(
    target: Path, name: str, text: str, message: str
) -> None:
    """ConvergeError: a commit can mend it. Nothing was changed, so an open gate stays open."""
    error, run = failed(working_tree(target, FILE, **{name: text}), ConvergeError)
    assert message in error
    assert not run.gate_in_doubt
    assert list(target.iterdir()) == []


def test_ops_repo_without_deploy_py_is_an_error(target: Path) -> None:
    root = working_tree(target, FILE)
    (root / "deploy.py").unlink()
    assert failed(root, ConvergeError)[0] == f"{root}/deploy.py is not in the ops repo. Commit it."


def test_module_that_declares_no_role_is_a_data_error(target: Path) -> None:
    root = working_tree(target, "", **{"roles/site/__init__.py": "x = 1\n"})
    assert "declares no role 'site'" in failed(root, DataError)[0]


def test_role_that_needs_an_unknown_role_is_a_role_error(target: Path) -> None:
    root = working_tree(target, FILE)
    module = root / "roles/site/__init__.py"
    module.write_text(module.read_text().replace("@role(", '@role(needs=["bse"], '))
    assert failed(root, RoleError)[0].startswith("There is no role 'bse'.")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('a bug in a callback')", "a bug in a callback"),
        ("server.shell(name='the inner one', commands='exit 1')", ""),
    ],
    ids=["its own exception", "a nested operation"],
)
def test_failure_inside_a_callback_names_the_outer_operation(target: Path, code: str, reason: str) -> None:
    message, run = failed(
        working_tree(target, f'def call():\n    {code}\npython.call(name="outer", function=call)'),
        ConvergeError,
    )
    assert "'site | outer'" in message
    assert reason in message
    assert run.report.operations[-1].failed


@pytest.mark.parametrize(
    ("text", "mode"), [("{{ absent }}", "converge"), ("{% if %}", "plan"), ("{{ absent }}", "blank")]
)
def test_error_in_a_template_is_a_data_error_that_names_it(target: Path, text: str, mode: str) -> None:
    """Only a commit can mend it, so a retry cannot help."""
    root = working_tree(
        target,
        'files.template(name="a template", src="roles/site/it.j2", dest=f"{data.target}/it")',
        **{"roles/site/it.j2": text},
    )
    assert "roles/site/it.j2" in failed(root, DataError, mode=mode)[0]


def test_missing_local_file_is_named(target: Path) -> None:
    root = working_tree(target, 'files.put(name="a file", src="roles/site/absent", dest=f"{data.target}/it")')
    assert "roles/site/absent" in failed(root, ConvergeError)[0]
