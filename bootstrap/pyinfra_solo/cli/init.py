"""The ops repo that `pyinfra-solo init` writes: this project's own roles, engine and tests.

There is no second copy of them: the wheel carries the files of SHIPPED as its folder skeleton/, and
a working tree is its own skeleton. What is shipped is what is tested.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from pyinfra_solo.errors import SoloError, UsageError
from pyinfra_solo.system import durable

PACKAGE = Path(__file__).parents[1]
ENGINE = "bootstrap/pyinfra_solo"
SHIPPED = (
    "deploy.py",
    "roles",
    "inventories",
    "requirements.lock",
    "bootstrap/install.sh",
    "bootstrap/user-data.yaml",
    "bootstrap/config.example.toml",
    "bootstrap/uv.txt",
    "tests/test_roles.py",
)
"""What an ops repo starts with, beside the engine. pyproject.toml names the same for the wheel."""
_IGNORED = "__pycache__/\n*.pyc\n.venv/\n.pytest_cache/\npyinfra-debug.log\n"
_README = """\
# Our machines

Each machine converges itself at boot to the newest commit of this repository, with
[pyinfra-solo](bootstrap/pyinfra_solo/__init__.py), and takes traffic only when its role's checks pass.

| where | what |
| --- | --- |
| `roles/<name>/` | what a machine can be: its values, operations and checks; templates and files beside them |
| `roles/roles.toml` | which security group means which role |
| `inventories/` | a file per stage; `group_data/` holds the values that differ from a role's defaults |
| `deploy.py` | what pyinfra runs: each role, and the gate last |
| `bootstrap/` | the engine, and what bakes it into an image |
| `requirements.lock` | what the engine and the roles need, with hashes |
| `tests/` | every role is planned in every stage, on a machine with nothing on it |

## A change

    pytest tests                                                    # what CI runs
    pyinfra-solo plan --dir . --role web --stage staging --blank    # what a new machine would do
    git commit && git push                                          # machines take it at their next run

`pytest` runs in an environment made by `pip install --require-hashes -r requirements.lock` and `pip install pytest`.
On a machine: `pyinfra-solo plan` says what the newest commit would change there, with diffs; `pyinfra-solo run` does
it; `pyinfra-solo status` says what the machine is, and whether it is in.

## A machine

Push this repository where machines can read it. On a machine made from your base image, as root:

    git clone https://git.example.com/acme/ops.git && ops/bootstrap/install.sh
    $EDITOR /etc/pyinfra-solo/config.toml       # ops.remotes, and whom to trust

and make an image of it; or give `bootstrap/user-data.yaml` to cloud-init. Instances have a tag `Role` (or a security group
that `roles/roles.toml` maps) and a tag `Stage`. The balancer's health check asks for `/ping.html`.
"""


def init(directory: Path) -> list[Path]:
    """Write an ops repo into `directory`, which is made if need be: the files written, in order.

    Raises UsageError when `directory` is not an empty folder (one with only .git in it is), SoloError
    when this installation has no skeleton, or the folder cannot be written.
    """
    _require_empty(directory)
    root = _root()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = [_copy(source, directory / name) for name, source in sorted(_files(root).items())]
        for name, text in (("README.md", _README), (".gitignore", _IGNORED)):
            durable.write(directory / name, text)
            written.append(directory / name)
    except OSError as error:
        raise SoloError(f"{directory} cannot be written: {error}. Remove it, and run this again.") from error
    return written


def _require_empty(directory: Path) -> None:
    if directory.is_dir():
        found = sorted(path.name for path in directory.iterdir() if path.name != ".git")
        if not found:
            return
        raise UsageError(
            f"{directory} is not empty: it holds {found[0]}. Name a folder that is new or empty."
        )
    if directory.exists() or directory.is_symlink():
        raise UsageError(f"{directory} is not a folder. Name one that is new or empty.")


def _root() -> Path:
    """The wheel's skeleton, else the working tree that this engine stands in."""
    for root in (PACKAGE / "skeleton", PACKAGE.parent.parent):
        if all((root / name).exists() for name in SHIPPED):
            return root
    raise SoloError(
        f"The engine in {PACKAGE} has no skeleton beside it. Run init from an installed pyinfra-solo, or a clone of it."
    )


def _files(root: Path) -> dict[str, Path]:
    """Every file of the new repository: its name there, and where it is now."""
    found = {f"{ENGINE}/{name}": path for name, path in _below(PACKAGE)}
    for shipped in SHIPPED:
        if (root / shipped).is_dir():
            found |= {f"{shipped}/{name}": path for name, path in _below(root / shipped)}
        else:
            found[shipped] = root / shipped
    return found


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Neither bytecode nor the wheel's skeleton, whose files a new repository gets in their own places."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in name.parts and name.parts[0] != "skeleton":
            yield str(name), path


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb") as file:  # not every installer keeps the mode that a wheel says
        target.chmod(0o755 if file.read(2) == b"#!" else 0o644)
    return target
