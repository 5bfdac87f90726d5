"""What install.sh and `pyinfra-solo install` put on a machine, and that the locks are in step."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pyinfra_solo.clients import lockfile
from pyinfra_solo.errors import UsageError
from pyinfra_solo.units.install import detect, install
from tests.support.machine import ENGINE, REPOSITORY, listing, stamps

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
INSTALL = REPOSITORY / "bootstrap/install.sh"
UNITS = ENGINE / "pyinfra_solo/units"
LOCKS = ("requirements.lock", "requirements-dev.lock", "bootstrap/uv.txt", "tests/app/requirements.lock")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A root with a baked engine in it, that is not running."""
    command = tmp_path / "opt/pyinfra-solo/bin/pyinfra-solo"
    command.parent.mkdir(parents=True)
    command.touch()
    return tmp_path


def pinned(name: str) -> dict[str, set[str]]:
    """A lock file's packages and the versions of each."""
    found: dict[str, set[str]] = {}
    path = REPOSITORY / name
    pins = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", path.read_text(), re.MULTILINE)
    assert len(pins) == lockfile.count(path.read_bytes(), path)
    for package, version in pins:
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_everything_with_hashes_and_names_no_index(name: str) -> None:
    assert pinned(name)
    assert not re.search(r"https?://|file:|--index|--find-links", (REPOSITORY / name).read_text())


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]),
    ],
)
def test_a_lock_is_in_step_with_the_project(name: str, asked: list[str]) -> None:
    versions = pinned(name)
    for line in asked:
        requirement = Requirement(line)
        found = versions.get(canonicalize_name(requirement.name), set())
        assert found, f"{requirement.name} is not in {name}"
        assert all(requirement.specifier.contains(version) for version in found), line


def test_tests_run_with_the_very_packages_that_machines_run_with() -> None:
    machines, tests = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert {name: tests.get(name) for name in machines} == machines


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_what_is_compiled_is_locked_for_every_architecture(architecture: str) -> None:
    """A lock of one architecture has one or two hashes for a compiled package; uv's has them all."""
    text = (REPOSITORY / "requirements.lock").read_text()
    for name in ("msgspec", "cryptography", "gevent", "markupsafe"):
        hashes = re.search(rf"^{name}==(.*\\\n)*.*", text, re.MULTILINE)
        assert hashes, name
        assert hashes[0].count("--hash=") > 10, f"{name} for {architecture}"


FILES = {
    "systemd": {"etc/systemd/system/pyinfra-solo.service", "etc/systemd/system/pyinfra-solo-fence.service"},
    "upstart": {"etc/init/pyinfra-solo.conf", "etc/init/pyinfra-solo-fence.conf"},
    "sysv": {"etc/init.d/pyinfra-solo", "etc/init.d/pyinfra-solo-fence"},
}


def written(root: Path) -> set[str]:
    """Every file below etc."""
    return {name for name in listing(root) if name.startswith("etc/") and (root / name).is_file()}


def test_systemds_units_are_written_and_enabled_in_an_image_that_is_not_running(image: Path) -> None:
    done = install("systemd", root=image)
    assert written(image) >= FILES["systemd"]
    wants = image / "etc/systemd/system/multi-user.target.wants"
    assert {path.name for path in wants.iterdir()} == {"pyinfra-solo.service", "pyinfra-solo-fence.service"}
    assert done.lines()[0] == "init system: systemd"
    assert not done.started


def test_no_web_server_starts_when_the_fence_failed(image: Path) -> None:
    install("systemd", root=image)
    for name in ("nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy"):
        text = (image / f"etc/systemd/system/{name}.service.d/50-pyinfra-solo.conf").read_text()
        assert "\nRequires=pyinfra-solo-fence.service\n" in text
        assert "\nAfter=pyinfra-solo-fence.service\n" in text


def test_upstarts_jobs_are_written(image: Path) -> None:
    install("upstart", root=image)
    assert written(image) == FILES["upstart"]


def test_installed_again_nothing_is_touched_and_it_says_so(image: Path) -> None:
    for init in ("systemd", "upstart"):
        assert install(init, root=image).changed
        before = stamps(image)
        again = install(init, root=image)
        assert again.changed == []
        assert again.lines() == [f"init system: {init}", "nothing to change"]
        assert stamps(image) == before


def test_a_unit_that_somebody_changed_is_put_right_with_its_mode(image: Path) -> None:
    install("upstart", root=image)
    path = image / "etc/init/pyinfra-solo.conf"
    path.write_text("changed")
    assert install("upstart", root=image).changed == [path]
    path.chmod(0o600)
    assert install("upstart", root=image).changed == [path]
    assert path.read_text() == (UNITS / "pyinfra-solo.conf").read_text()
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_unit_that_an_operator_masked_stays_masked(image: Path) -> None:
    unit = image / "etc/systemd/system/pyinfra-solo.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/dev/null")
    with pytest.raises(UsageError, match=r"pyinfra-solo\.service is masked\. `systemctl unmask"):
        install("systemd", root=image)
    assert unit.is_symlink()


def test_units_are_not_installed_where_what_they_start_is_not(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"/opt/pyinfra-solo/bin/pyinfra-solo, which is not here\. Run bootstrap"
    ):
        install("systemd", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_running_cannot_be_started_now(image: Path) -> None:
    with pytest.raises(UsageError, match=r"an image being built\. Leave it out"):
        install("systemd", now=True, root=image)


def roots(folder: Path) -> Iterator[tuple[str, Path]]:
    """Images by what their /sbin/init is."""
    for name, target in (("systemd", "/lib/systemd/systemd"), ("usrmerged", "../lib/systemd/systemd")):
        (folder / name / "sbin").mkdir(parents=True)
        (folder / name / "sbin/init").symlink_to(target)
        (folder / name / "etc/init.d").mkdir(parents=True)
        yield "systemd", folder / name
    (folder / "running/run/systemd/system").mkdir(parents=True)
    yield "systemd", folder / "running"
    for name in ("sbin", "etc/init.d"):
        (folder / "sysv" / name).mkdir(parents=True)
    (folder / "sysv/sbin/init").touch()
    yield "sysv", folder / "sysv"


def test_the_init_system_of_an_image_is_found(tmp_path: Path) -> None:
    assert [detect(root) for _, root in roots(tmp_path)] == ["systemd", "systemd", "systemd", "sysv"]


def test_without_an_init_system_it_says_which_can_be_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Name one: --init systemd, upstart or sysv"):
        detect(tmp_path)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what install.sh needs to read its command line, and nothing that could write: whatever
    it fails to refuse, it cannot do to the machine that runs the tests."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("dirname", "id", "sed"):
        (folder / name).symlink_to(Path("/usr/bin") / name)
    return folder


def bake(tools: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """install.sh, for what it refuses before it does anything."""
    return subprocess.run(
        ["/usr/bin/dash", INSTALL, *words], env={"PATH": str(tools)}, capture_output=True, text=True, check=False,
        timeout=10,
    )  # fmt: skip


def test_install_sh_is_posix_shell_and_tells_every_option(tools: Path) -> None:
    subprocess.run(["dash", "-n", INSTALL], check=True)
    said = bake(tools, "--help")
    assert said.returncode == 0
    options = set(re.findall(r"^        (--[a-z-]+)\)", INSTALL.read_text(), re.MULTILINE))
    assert options == {"--wheels", "--config", "--no-units", "--now"}
    assert all(option in said.stdout for option in options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--wheel", "x"], "unknown option --wheel"),
        (["--config"], "--config needs a value"),
        (["--config", "/not there"], "there is no /not there"),
        (["--wheels", "/not there"], "there is no folder /not there"),
    ],
)
def test_install_sh_refuses_a_wrong_command_line_before_it_does_anything(
    tools: Path, words: list[str], said: str
) -> None:
    done = bake(tools, *words)
    assert done.returncode == 64
    assert said in done.stderr


def test_every_command_that_a_unit_starts_is_installed() -> None:
    installed = re.search(r"for name in (pyinfra-solo[^;]*); do", INSTALL.read_text())
    assert installed
    started = {
        match for unit in UNITS.iterdir() if unit.is_file()
        for match in re.findall(r"/opt/pyinfra-solo/bin/([a-z-]+)", unit.read_text())
    }  # fmt: skip
    assert started <= set(installed[1].split())
    assert all((UNITS / name).exists() for name in installed[1].split())
