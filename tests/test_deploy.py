"""What deploy.py must do: converge each role, and call gate() last; and for which host it does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyinfra.context import ctx_host

from pyinfra_solo import deploy
from pyinfra_solo.errors import DataError
from pyinfra_solo.executor.host import local_state
from pyinfra_solo.ops_repo.bind import BoundRole, DeployContext
from pyinfra_solo.role import NoData, Role
from tests.support.line import FILE, Line, converged, working_tree

ROLES = "from pyinfra_solo.deploy import gate, roles\n"
ALL = "for role in roles():\n    role.converge()\n"
MORE = "from pyinfra.operations import server\nserver.shell(name='one more', commands='true')\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pass\n", "does not converge the role 'site'"),
        (f"{ROLES}gate()\n", "does not converge the role 'site'"),
        (f"{ROLES}{ALL}", "does not end with gate()"),
        (f"{ROLES}{ALL}gate()\n{MORE}", "does not end with gate()"),
    ],
    ids=["empty", "without a role", "without gate", "an operation after gate"],
)
def test_deploy_py_that_leaves_something_out_is_refused(target: Path, text: str, problem: str) -> None:
    """Its operations would change a machine under an open gate, or not at all under a green one."""
    root = working_tree(target, FILE)
    (root / "deploy.py").write_text(text)
    with pytest.raises(DataError, match=problem.replace("(", r"\(").replace(")", r"\)")):
        converged(root)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    "text", [f"{ROLES}{ALL}", f"{ROLES}{ALL}gate()\n{MORE}"], ids=["no gate", "gate not last"]
)
def test_pyinfras_command_closes_the_gate_of_such_a_deploy_py(tmp_path: Path, text: str) -> None:
    line = Line(tmp_path)
    line.put_in_service()
    tree = working_tree(line.target, FILE.replace("data.text", "'another'"))
    (tree / "deploy.py").write_text(text)
    line.machine.pyinfra(tree)
    assert not line.machine.in_service


def test_each_host_of_a_push_has_its_own_roles(tmp_path: Path) -> None:
    """pyinfra runs deploy.py once for each host, in one process."""

    def bound(name: str) -> list[BoundRole]:
        role = Role(name=name, data=NoData, needs=(), healthy=lambda _data: (), operations=lambda _data: None)
        return [BoundRole(role, NoData())]

    hosts = [next(iter(local_state(tmp_path, {}).inventory)) for _ in range(2)]
    for host, name in zip(hosts, ("web", "worker"), strict=True):
        with ctx_host.use(host):
            deploy.use(DeployContext(bound(name)))
    for host, name in zip(hosts, ("web", "worker"), strict=True):
        with ctx_host.use(host):
            assert [one.role.name for one in deploy.roles()] == [name]
