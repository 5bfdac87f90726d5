"""A failure names its reason, and the file and line of the ops repo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, StrictUndefined
from pyinfra.api.exceptions import PyinfraError

from pyinfra_solo.errors import DataError
from pyinfra_solo.executor.failures import pyinfra_log, translate


def caught(call: Callable[[], Any]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - the test's own
        return error
    raise AssertionError


def of_repo(root: Path, role: str) -> Exception:
    (root / "roles/cache").mkdir(parents=True)
    (root / "roles/cache/__init__.py").write_text(role)
    (root / "deploy.py").write_text("\nexec(compile(text, path, 'exec'), {})\n")
    names = {"text": role, "path": str(root / "roles/cache/__init__.py")}
    code = compile((root / "deploy.py").read_text(), str(root / "deploy.py"), "exec")
    return caught(lambda: exec(code, names))  # noqa: S102 - as the executor does


@pytest.mark.parametrize("given", [True, False])
def test_exception_of_a_role_names_its_file_and_line(tmp_path: Path, given: bool) -> None:
    error = of_repo(tmp_path, "def f():\n    return nme\n\nf()\n")
    found = translate(error, "deploy.py", tmp_path if given else None)
    assert str(found) == "deploy.py failed: NameError: name 'nme' is not defined (roles/cache/__init__.py:2)"


def test_exception_inside_a_library_names_the_line_that_called_it(tmp_path: Path) -> None:
    error = of_repo(tmp_path, "import json\njson.loads('{')\n")
    assert str(translate(error, "deploy.py")).endswith("(roles/cache/__init__.py:2)")


def test_exception_outside_of_the_ops_repo_names_no_line() -> None:
    assert (
        str(translate(ValueError("x"), "the operation 'one'")) == "the operation 'one' failed: ValueError: x"
    )


def test_template_is_named_with_its_line() -> None:
    template = Environment(undefined=StrictUndefined, autoescape=True).from_string(
        "one\n{{ missing.part }}\n"
    )
    found = translate(caught(template.render), "the operation 'one'")
    assert isinstance(found, DataError)
    assert "(line 2 of the template). Correct it" in str(found)


def test_no_hosts_remaining_gives_what_pyinfra_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pyinfra_log, "lines", ["older", "cannot read /etc/shadow", "Error: could not load fact"]
    )
    found = str(translate(PyinfraError("No hosts remaining!"), "deploy.py"))
    assert found == "deploy.py failed: cannot read /etc/shadow; Error: could not load fact"
