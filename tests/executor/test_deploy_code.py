"""Deploy code has what pyinfra's own command gives it: values in `host.data`, and other files' code."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyinfra_solo.errors import ConvergeError
from pyinfra_solo.executor.host import host_data
from pyinfra_solo.ops_repo.bind import BoundRole
from pyinfra_solo.role import role
from tests.support.line import converged, failed, new_run, working_tree

NOTES_DATA = """
from pyinfra import host

names = ("text", "target", "token", "name", "other")
found = [getattr(host.data, name, None) for name in names]
files.put(name="data", src=StringIO(repr(found)), dest=f"{data.target}/data")
files.template(name="template", src=StringIO("{{ host.data.text }}|{{ host.data.name is defined }}"), dest=f"{data.target}/filled")
"""
INCLUDES = """
from pyinfra import config, local
from pyinfra.api.exceptions import PyinfraError

config.SHELL = "sh"
local.include("tasks/outer.py", data={"number": 7})
server.shell(name="after", commands=[f"echo $0 > {data.target}/shell"])
"""
OUTER = """
from pathlib import Path
from pyinfra import config, host, local
from pyinfra.operations import files

config.SHELL = "/bin/bash"
Path(__file__).with_name("seen").write_text(f"{__name__} {host.data.number}")
local.include("./inner.py")
"""
INNER = """
from pyinfra import host
from pyinfra.operations import server

server.shell(name="inner", commands=["echo ${BASH_VERSION:+bash} > TARGET/inner"])
"""


def test_host_data_holds_what_group_data_and_flags_set(target: Path) -> None:
    """Not a role's defaults, and nothing for the arguments that each operation has."""
    groups = {
        "inventories/group_data/all.py": "text = 'of all'\ntoken = 'hunter2'\n",
        "inventories/group_data/staging.py": "text = 'of the stage'\n",
    }
    root = working_tree(target, NOTES_DATA, **groups)
    converged(root)
    assert (target / "data").read_text() == "['of the stage', None, 'hunter2', None, None]"
    assert (target / "filled").read_text() == "of the stage|False"
    converged(root, data={"text": "of a flag"})
    assert (target / "filled").read_text() == "of a flag|False"


def test_host_data_gives_no_operation_a_name() -> None:
    """pyinfra takes `name` for the name of each operation."""

    @dataclass(frozen=True, kw_only=True)
    class Data:
        name: str = ""
        text: str = ""

    @role(data=Data)
    def web(data: Any) -> None:
        """Do nothing."""

    bound = [
        BoundRole(web, Data(), given={"name": "shop", "text": "x"}),
        BoundRole(web, Data(), given={"text": "x"}),
    ]
    assert host_data(bound) == {"text": "x"}


def test_deploy_code_may_include_other_files(target: Path) -> None:
    files = {"tasks/outer.py": OUTER, "tasks/inner.py": INNER.replace("TARGET", str(target))}
    run = new_run()
    converged(working_tree(target, INCLUDES, **files), run=run)
    assert (target.parent / "tree/tasks/seen").read_text() == "builtins 7"
    assert (target / "inner").read_text() == "bash\n"
    assert (target / "shell").read_text() == "sh\n"
    assert [one.name for one in run.report.operations] == [
        "site | tasks/outer.py | tasks/inner.py | inner",
        "site | after",
    ]


def test_mistake_in_an_included_file_is_named_with_its_line(target: Path) -> None:
    root = working_tree(target, INCLUDES, **{"tasks/outer.py": "\nnothing\n"})
    message, _ = failed(root, ConvergeError)
    assert "NameError: name 'nothing' is not defined (tasks/outer.py:2)" in message
    (root / "tasks/outer.py").unlink()
    message, _ = failed(root, ConvergeError)
    assert "tasks/outer.py" in message


def test_pyinfras_command_line_is_refused_before_any_change(target: Path) -> None:
    """Its import patches the process."""
    root = working_tree(target, 'files.file(path=f"{data.target}/file")')
    module = root / "roles/site/__init__.py"
    module.write_text(f"from pyinfra_cli.util import exec_file\n{module.read_text()}")
    message, _ = failed(root, ConvergeError)
    assert "roles/site/__init__.py cannot be loaded: ImportError: pyinfra_cli" in message
    assert "Use pyinfra.api" in message
    assert list(target.iterdir()) == []
