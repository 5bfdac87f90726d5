"""`pyinfra-solo install`: the units of each init system, written and enabled once, and the init system found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_solo.errors import UsageError
from pyinfra_solo.units.install import _add_to_inittab, detect, install
from tests.support.files import listing, stamps
from tests.support.machine import ENGINE

UNITS = ENGINE / "pyinfra_solo/units"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with an installed engine."""
    command = tmp_path / "opt/pyinfra-solo/bin/pyinfra-solo"
    command.parent.mkdir(parents=True)
    command.touch()
    return tmp_path


FILES = {
    "systemd": {
        "etc/systemd/system/pyinfra-solo.service",
        "etc/systemd/system/pyinfra-solo-fence.service",
        "etc/systemd/system/pyinfra-solo-shutdown.service",
    },
    "upstart": {f"etc/init/pyinfra-solo{part}.conf" for part in ("", "-fence", "-fence-web")},
    "sysv": {"etc/init.d/pyinfra-solo", "etc/init.d/pyinfra-solo-fence"},
}


def written(root: Path) -> set[str]:
    """List every file below etc."""
    return {name for name in listing(root) if name.startswith("etc/") and (root / name).is_file()}


def test_systemd_units_are_written_and_enabled_in_an_image(image: Path) -> None:
    done = install("systemd", root=image)
    assert written(image) >= FILES["systemd"]
    wants = image / "etc/systemd/system/multi-user.target.wants"
    assert {path.name for path in wants.iterdir()} == {
        "pyinfra-solo.service",
        "pyinfra-solo-fence.service",
        "pyinfra-solo-shutdown.service",
    }
    assert done.lines()[0] == "init system: systemd"
    assert not done.started


def test_web_servers_need_the_fence(image: Path) -> None:
    install("systemd", root=image)
    for name in ("nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy"):
        text = (image / f"etc/systemd/system/{name}.service.d/50-pyinfra-solo.conf").read_text()
        assert "\nRequires=pyinfra-solo-fence.service\n" in text
        assert "\nAfter=pyinfra-solo-fence.service\n" in text


INITTAB = "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\nl0:0:wait:/etc/init.d/rc 0\n"


def test_gate_is_the_first_that_init_closes_in_its_inittab(image: Path) -> None:
    inittab = image / "inittab"
    inittab.write_text(INITTAB)
    assert _add_to_inittab(inittab) == [inittab]
    assert _add_to_inittab(inittab) == []
    comment, entry, *rest = inittab.read_text().splitlines(keepends=True)
    assert comment.startswith("# pyinfra-solo: ")
    assert entry == "pg:016:wait:/opt/pyinfra-solo/bin/pyinfra-solo-fence close\n"
    assert "".join(rest) == INITTAB
    assert _add_to_inittab(image / "no-inittab") == []


def test_upstart_jobs_are_written(image: Path) -> None:
    install("upstart", root=image)
    assert written(image) == FILES["upstart"]


def test_second_install_touches_nothing_and_says_so(image: Path) -> None:
    for init in ("systemd", "upstart"):
        assert install(init, root=image).changed
        before = stamps(image)
        second = install(init, root=image)
        assert second.changed == []
        assert second.lines() == [f"init system: {init}", "nothing to change"]
        assert stamps(image) == before


def test_changed_unit_gets_its_text_and_mode_back(image: Path) -> None:
    install("upstart", root=image)
    path = image / "etc/init/pyinfra-solo.conf"
    path.write_text("changed")
    assert install("upstart", root=image).changed == [path]
    path.chmod(0o600)
    assert install("upstart", root=image).changed == [path]
    assert path.read_text() == (UNITS / "pyinfra-solo.conf").read_text()
    assert path.stat().st_mode & 0o777 == 0o644


def test_masked_unit_stays_masked(image: Path) -> None:
    unit = image / "etc/systemd/system/pyinfra-solo.service"
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/dev/null")
    with pytest.raises(UsageError, match=r"pyinfra-solo\.service is masked\. Run `systemctl unmask"):
        install("systemd", root=image)
    assert unit.is_symlink()


def test_units_are_not_installed_without_the_engine(tmp_path: Path) -> None:
    error = r"/opt/pyinfra-solo/bin/pyinfra-solo, which is not there\. Run bootstrap"
    with pytest.raises(UsageError, match=error):
        install("systemd", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_boot_run_cannot_be_started_in_an_image(image: Path) -> None:
    with pytest.raises(UsageError, match=r"an image being built\. Leave it out"):
        install("systemd", now=True, root=image)


def roots(folder: Path) -> Iterator[tuple[str, Path]]:
    """Make an image for each kind of /sbin/init, and yield it with the init system to be found."""
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


def test_init_system_of_an_image_is_detected(tmp_path: Path) -> None:
    assert [detect(root) for _, root in roots(tmp_path)] == ["systemd", "systemd", "systemd", "sysv"]


def test_unknown_init_system_is_an_error_that_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Name it: --init systemd, upstart or sysv"):
        detect(tmp_path)
