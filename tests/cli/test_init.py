"""`pyinfra-solo init`: a new ops repo that works as its README says, from a clone, a wheel or a repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pyinfra_solo.cli import init
from pyinfra_solo.errors import UsageError
from tests.support.files import listing
from tests.support.git import Sshd, ssh_server
from tests.support.machine import REPOSITORY, LocalMachine
from tests.support.wheels import uv

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
NEW = "bootstrap/pyinfra_solo/cli/new_repo"


def files(folder: Path) -> dict[str, bytes]:
    """Read every file of a folder, bytecode apart."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and ".pytest_cache" not in path.parts
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new ops repo."""
    folder = tmp_path_factory.mktemp("ops") / "new/ops"
    init.init(folder)
    return folder


def test_new_repository_has_this_one_s_files_and_those_of_new_repo(repository: Path) -> None:
    written = files(repository)
    assert tomllib.loads(written.pop("ops.toml").decode()) == {"name": "ops"}
    for name, content in written.items():
        source = f"{NEW}/{init.WRITTEN[name]}" if name in init.WRITTEN else name
        assert content == (REPOSITORY / source).read_bytes(), name
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "--", init.ENGINE, *init.SHIPPED],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert set(written) - set(init.WRITTEN) == {name for name in listed if (REPOSITORY / name).is_file()}


def test_init_returns_the_files_and_makes_programs_executable(tmp_path: Path) -> None:
    written = init.init(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in written} == set(files(tmp_path))
    executable = {path.name for path in written if path.stat().st_mode & 0o111}
    assert {"install.sh", "pyinfra-solo-fence", "pyinfra-solo-retry"} <= executable
    assert "__init__.py" not in executable


def test_summary_names_what_is_there_and_the_next_steps(tmp_path: Path) -> None:
    folder = tmp_path / "our ops"
    first, *steps = init.summary(folder, init.init(folder))

    assert first == (
        f"Wrote {len(files(folder))} files to {folder}: .gitignore, README.md, bootstrap/, deploy.py, "
        "inventories/, ops.toml, requirements.lock, roles/, tests/"
    )
    assert f"  cd '{folder}'" in steps
    *commands, plan = [step.partition("  #")[0] for step in steps if step.startswith("  ")]
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **identity, "EDITOR": "test -e"}
    subprocess.run(["sh", "-ec", "\n".join(commands)], env=environment, capture_output=True, check=True)
    assert (folder / ".git").is_dir()
    machine = LocalMachine(tmp_path / "machine")
    machine.solo(*plan.split()[1:], cwd=folder).expect(2)


@pytest.mark.parametrize(
    ("folder", "given", "name"),
    [
        ("our ops", None, "our-ops"),
        ("Shop_2", None, "shop_2"),
        ("ops.git", None, "ops-git"),
        ("ops", "shop", "shop"),
    ],
)
def test_name_of_the_repository_is_the_given_one_or_the_folder_s(
    tmp_path: Path, folder: str, given: str | None, name: str
) -> None:
    init.init(tmp_path / folder, given)
    assert tomllib.loads((tmp_path / folder / "ops.toml").read_text()) == {"name": name}


def test_current_folder_gives_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")
    init.init(Path())
    assert 'name = "shop"' in Path("ops.toml").read_text()


@pytest.mark.parametrize(
    ("folder", "given"), [("2026", None), ("ops", "Our ops"), ("ops", ""), ("ops", 'a"\n')]
)
def test_text_that_is_no_name_is_refused_before_a_file_is_written(
    tmp_path: Path, folder: str, given: str | None
) -> None:
    with pytest.raises(UsageError, match="Give one with --name"):
        init.init(tmp_path / folder, given)
    assert listing(tmp_path) == {}


def test_init_leaves_a_folder_alone_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops/mine").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(UsageError, match=r"is not empty: it holds mine\. Name a folder"):
        init.init(tmp_path / "ops")
    with pytest.raises(UsageError, match="is not a folder"):
        init.init(tmp_path / "ops/mine")
    assert listing(tmp_path) == before


def test_init_takes_a_folder_with_nothing_but_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    init.init(tmp_path)
    assert (tmp_path / "deploy.py").exists()


def fences(repository: Path) -> list[str]:
    """Return the README's shell commands, a fence each: set up, change, push, machine, run."""
    return re.findall(r"^```sh\n(.*?)^```", (repository / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_readme_sets_up_what_its_commands_need(repository: Path) -> None:
    """`set_up` does the same without a package index; tests/lab/test_readme.py runs these lines as written."""
    assert fences(repository)[0].splitlines()[:-1] == [
        "python3 -m venv .venv",
        ".venv/bin/pip install --require-hashes -r requirements.lock",
        ".venv/bin/pip install pytest",
    ]


def set_up(repository: Path) -> None:
    """Make its .venv: with the packages and commands of this process's own, which has no engine."""
    venv = repository / ".venv"
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, venv], check=True)
    packages = Path(sys.prefix) / "lib" / VERSION / "site-packages"
    assert not (packages / "pyinfra_solo").exists()
    (venv / "lib" / VERSION / "site-packages/packages.pth").write_text(f"{packages}\n")
    for name in ("pyinfra", "pytest"):
        lines = (Path(sys.executable).parent / name).read_text().splitlines(keepends=True)
        (venv / "bin" / name).write_text("".join([f"#!{venv}/bin/python\n", *lines[1:]]))
        (venv / "bin" / name).chmod(0o755)
    last_line = fences(repository)[0].splitlines()[-1]
    subprocess.run(["sh", "-ec", last_line], cwd=repository, check=True)


def test_readme_s_commands_work_as_written(repository: Path, tmp_path: Path) -> None:
    """They find the engine in the repository, also in a push over SSH; and so does the command in deploy.py."""
    machine = LocalMachine(tmp_path / "machine")
    machine.configure(machine='ec2 = "no"\nrole = "base"\nstage = "staging"')
    environment = {**machine.variables(), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    del environment["PYTHONPATH"]
    copy = shutil.copytree(repository, tmp_path / "ops")
    set_up(copy)
    activate, *commands = fences(copy)[1].splitlines()
    commands += [fences(copy)[2].strip(), "pyinfra @local deploy.py --dry"]
    results = []
    with ssh_server(tmp_path / "sshd") as server:
        add_host(copy, server)
        for line in commands:
            done = subprocess.run(
                ["sh", "-c", f"{activate}\n{line}"], cwd=copy, env=environment, capture_output=True, text=True,
                check=False, timeout=300,
            )  # fmt: skip
            results.append((line.split()[0], done.returncode, done.stdout + done.stderr))

    expected = [("pytest", 0), ("python", 2), ("pyinfra", 0), ("pyinfra", 0)]
    assert [result[:2] for result in results] == expected, results
    assert " passed" in results[0][2]
    assert "deploy can log in" in results[2][2]


def add_host(repository: Path, server: Sshd) -> None:
    """Make this host a machine of the stage `staging`, with a shell for who has the key."""
    public = server.client.with_suffix(".pub").read_text()
    (server.folder / "authorized_keys").write_text(public)
    (server.folder / "known_hosts").write_text(server.known_hosts)
    data = {
        "role": "base", "ssh_port": server.port, "ssh_key": str(server.client), "ssh_user": "root",
        "ssh_known_hosts_file": str(server.folder / "known_hosts"), "ssh_strict_host_key_checking": "yes",
    }  # fmt: skip
    (repository / "inventories/staging.py").write_text(f"hosts = [('127.0.0.1', {data!r})]\n")


def test_engine_of_a_repository_can_write_another_one(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pyinfra_solo", "init", tmp_path / "next", "--name", "ops"],
        env={"PYTHONPATH": str(repository / "bootstrap"), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert files(tmp_path / "next") == files(repository)


def test_wheel_carries_the_files_of_a_new_repository() -> None:
    built = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    carried = built["targets"]["wheel"]["force-include"]
    assert carried == {name: f"pyinfra_solo/skeleton/{name}" for name in init.SHIPPED}


def test_repository_from_the_wheel_is_the_one_from_the_clone(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"],
        cwd=REPOSITORY, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    wheel = next((tmp_path / "dist").glob("*.whl"))
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = ["pip", "install", "--quiet", "--no-deps", "--offline", "--python"]
    subprocess.run([uv(), *install, python, wheel], check=True)
    packages = tmp_path / "venv/lib" / VERSION / "site-packages"
    assert not list((packages / "pyinfra_solo").rglob("skeleton/**/*.pyc"))
    # What the engine needs is already here; the engine itself must be the wheel's.
    (packages / "here.pth").write_text(f"{Path(sys.prefix) / 'lib' / VERSION / 'site-packages'}\n")
    done = subprocess.run(
        [tmp_path / "venv/bin/pyinfra-solo", "init", tmp_path / "ops"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert files(tmp_path / "ops") == files(repository)
    assert done.stdout.startswith(f"Wrote {len(files(repository))} files to {tmp_path / 'ops'}: ")
    modes = {name: (tmp_path / "ops" / name).stat().st_mode for name in files(repository)}
    assert modes == {name: (repository / name).stat().st_mode for name in modes}
