"""Compare the documents with the code: commands and options exist, examples run, links lead to headings."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pyinfra_solo.cli import gate, inspect, run, setup  # noqa: F401 - they add their commands
from pyinfra_solo.cli.common import command

HERE = Path(__file__).parents[1]
README = HERE / "README.md"
DOCUMENTS = [README, *sorted((HERE / "docs").glob("*.md"))]
KNOWN = {
    "$EDITOR", "apt-get", "cd", "export", "git", "journalctl", "pyinfra", "python", "python3", "systemctl", "uv",
    "~/.venvs/pyinfra-solo/bin/pip",
}  # fmt: skip
"""Programs that are not ours: their options are not checked."""


def fences(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def words_of(document: Path) -> list[list[str]]:
    """List the commands in the `sh` fences, each as its words."""
    lines = [line for fence in fences(document, "sh") for line in fence.replace("\\\n", " ").splitlines()]
    return [
        shlex.split(part, comments=True)
        for line in lines
        for part in line.split("&&")
        if shlex.split(part, comments=True)
    ]


COMMANDS = [
    pytest.param(words, id=f"{document.stem}: {' '.join(words)}")
    for document in DOCUMENTS
    for words in words_of(document)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_exists_with_its_options(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    name, *rest = words
    if name == "pyinfra-solo":
        _parse(command, rest)
    elif name == "make":
        makefile = (HERE / "Makefile").read_text()
        variables = {word.partition("=")[0] for word in rest if "=" in word}
        assert all(f"$({variable})" in makefile for variable in variables)
        targets = {word for word in rest if "=" not in word}
        assert targets <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    elif "/" in name and name not in KNOWN:
        script = (HERE / re.sub(r"^(\./|ops/|/opt/pyinfra-solo/)", "", name)).read_text()
        assert all(f"{word})" in script for word in rest if word.startswith("--"))
    else:
        assert name in KNOWN
        files = [word for word in rest if name == "pyinfra" and word.endswith(".py")]
        assert all((HERE / file).exists() for file in files)


def _parse(group: click.Group, words: list[str]) -> None:
    """Parse the words as the command line does, to the last option; run nothing."""
    name, *rest = words
    found = group.commands[name]
    if isinstance(found, click.Group):
        _parse(found, rest)
    else:
        found.make_context(name, rest).close()


def test_the_readme_shows_a_role_as_it_is() -> None:
    text = README.read_text()
    shown = re.search(r'<!-- role: (\S+), from "(.+)" -->\n```python\n(.*?)```', text, re.DOTALL)
    assert shown
    path, begin, block = shown.groups()
    whole = (HERE / path).read_text()
    assert block == whole[whole.index(begin) :]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("stage", ["staging", "production"])
def test_the_role_of_the_documents_can_be_planned(stage: str, tmp_path: Path) -> None:
    example = next(text for text in fences(HERE / "docs/roles.md", "python") if "@role" in text)
    for name in ("bootstrap", "roles", "inventories"):
        shutil.copytree(HERE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("deploy.py", "requirements.lock"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "roles/cache/templates").mkdir(parents=True)
    (tmp_path / "roles/cache/__init__.py").write_text(example)
    (tmp_path / "roles/cache/templates/redis.conf.j2").write_text("maxmemory {{ cache_mib }}mb\n")
    words = ["plan", "--dir", str(tmp_path), "--role", "cache", "--stage", stage, "--blank"]
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra_solo", *words], capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE / "bootstrap")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "+maxmemory 256mb" in done.stdout
