"""Write a new ops repo: its name, this project's own roles, engine and tests, the files of new_repo/.

There is no second copy of them: the wheel carries the files of SHIPPED as its folder skeleton/, and
a working tree is its own skeleton. So a new repository gets the files that are tested here.
"""

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyinfra_solo import paths
from pyinfra_solo.errors import SoloError, UsageError
from pyinfra_solo.system.text import NAME

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
"""The files and folders of a new repository, without the engine.

pyproject.toml names them for the wheel.
"""
WRITTEN = {"README.md": "README.md", ".gitignore": "gitignore"}
"""The files that this project does not share with a new repository, and their names in new_repo/."""
_MARKER_TEXT = """\
# The name of this ops repo. A machine whose settings have another ops.name refuses each commit of it.
name = "{name}"
"""


def init(directory: Path, name: str | None = None) -> list[Path]:
    """Write an ops repo into `directory`, and return the files written. The folder is made if need be.

    name: of the ops repo; None: made from the folder's.
    Raises UsageError when `directory` is not an empty folder (.git may be in it) or there is no name,
    SoloError when this installation has no skeleton or the folder cannot be written.
    """
    _require_empty(directory)
    marker = _MARKER_TEXT.format(name=_name(directory, name))
    root = _root()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = [_copy(source, directory / file) for file, source in sorted(_files(root).items())]
        (directory / paths.OPS_MARKER).write_text(marker)
        return [*written, directory / paths.OPS_MARKER]
    except OSError as error:
        raise SoloError(f"{directory} cannot be written: {error}. Remove it, and run this again.") from error


def summary(directory: Path, written: Sequence[Path]) -> list[str]:
    """Count the files of a new repository, and name its folders and the next steps."""
    names = sorted({path.relative_to(directory).parts[0] for path in written})
    shown = ", ".join(f"{name}/" if (directory / name).is_dir() else name for name in names)
    return [
        f"Wrote {len(written)} files to {directory}: {shown}",
        "Next:",
        f"  cd {shlex.quote(str(directory))}",
        "  $EDITOR inventories/group_data/all.py    # your app, and the SSH keys that may log in",
        '  git init -b main && git add -A && git commit -m "Our machines"',
        "  pyinfra-solo plan --dir . --role web --stage staging --blank    # see what a new machine would get",
        "Then push it to a place where machines can read it. README.md shows how to test it, and how to set up a machine.",
    ]


def _name(directory: Path, given: str | None) -> str:
    """Return the name that is given, else the folder's with - for each run of other characters."""
    name = re.sub(r"[^a-z0-9_-]+", "-", directory.resolve().name.lower()) if given is None else given
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for an ops repo. Give one with --name: a-z, then a-z, 0-9, _ or -, 63 at most."
        )
    return name


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
    """Find the wheel's skeleton, or the working tree that this engine is part of."""
    for root in (PACKAGE / "skeleton", PACKAGE.parent.parent):
        if all((root / name).exists() for name in SHIPPED):
            return root
    raise SoloError(
        f"The engine in {PACKAGE} has no files for a new repository beside it. "
        "Run init from an installed pyinfra-solo, or from a clone of it."
    )


def _files(root: Path) -> dict[str, Path]:
    """Map the name of each file of the new repository to the file that it is a copy of."""
    found = {f"{ENGINE}/{name}": path for name, path in _below(PACKAGE)}
    found |= {name: PACKAGE / "cli/new_repo" / source for name, source in WRITTEN.items()}
    for shipped in SHIPPED:
        if (root / shipped).is_dir():
            found |= {f"{shipped}/{name}": path for name, path in _below(root / shipped)}
        else:
            found[shipped] = root / shipped
    return found


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below `folder`, without bytecode and without the wheel's skeleton."""
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
