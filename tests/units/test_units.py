"""The boot units beside the real cloud-init and nginx: in order, in no circle, and complete."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]

from pyinfra_solo.run import settings
from tests.support.cache import cache_folder
from tests.support.machine import ENGINE, REPOSITORY

UNITS = ENGINE / "pyinfra_solo/units"
PACKAGES = ("cloud-init", "nginx-common", "systemd")
SCRIPTS = (
    "pyinfra",
    "pyinfra-solo",
    "pyinfra-solo-fence",
    "pyinfra-solo-retry",
    "pyinfra-solo.lsb",
    "pyinfra-solo-fence.lsb",
)
FAILED = "the fence failed: CANNOT REMOVE "
WEB_SERVERS = {"nginx", "apache2", "httpd", "lighttpd", "caddy", "haproxy"}


@pytest.fixture(scope="session")
def distribution() -> Path:
    """Download Debian's own units of PACKAGES, once, and give their folder."""
    folder = cache_folder() / "units"
    if not folder.exists():
        building = folder.with_name(f".units-{os.getpid()}")
        (building / "debs").mkdir(parents=True)
        # As root apt would download as a user of its own, who may not write here.
        get = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *PACKAGES]
        subprocess.run(get, cwd=building / "debs", check=True, capture_output=True, timeout=120)
        for deb in (building / "debs").glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, building / "root"], check=True)
        building.rename(folder)
    return folder / "root"


@pytest.fixture
def machine(distribution: Path, tmp_path: Path) -> Path:
    """A root with those units and ours, all enabled, as in an image."""
    root = tmp_path / "root"
    ours = root / "etc/systemd/system"
    shutil.copytree(distribution / "lib/systemd", root / "lib/systemd", symlinks=True)
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True)
    for unit in UNITS.glob("*.service"):
        shutil.copy(unit, ours)
        for command in re.findall(r"^ExecStart=(\S+)", unit.read_text(), re.MULTILINE):
            (root / command[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / command[1:]).write_text("#!/bin/sh\n")
            (root / command[1:]).chmod(0o755)
    cloud = ("cloud-init-local", "cloud-init", "cloud-config", "cloud-final")
    enabled = [*(f"{name}.service" for name in cloud), "nginx.service"]
    enabled += ["pyinfra-solo.service", "pyinfra-solo-fence.service", "pyinfra-solo-shutdown.service"]
    subprocess.run(
        ["systemctl", "--quiet", f"--root={root}", "enable", *enabled], check=True, capture_output=True
    )
    # cloud-init's generator does this at boot, when a cloud is there.
    (wanted / "cloud-init.target").symlink_to("/lib/systemd/system/cloud-init.target")
    return root


def verified(root: Path) -> str:
    """Let systemd verify a boot of that root, and return its lines on our units and on cycles."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", "multi-user.target", "cloud-init.target"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return "\n".join(line for line in done.stderr.splitlines() if re.search(r"pyinfra-solo|cycl", line))


def unit(name: str) -> configparser.ConfigParser:
    """Read a unit's sections; the values of a key that is there twice are joined."""
    joined: dict[tuple[str, str], str] = {}
    section = ""
    for line in (UNITS / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            joined[section, key] = f"{joined.get((section, key), '')} {value}".strip()
    parsed = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    for (part, key), value in joined.items():
        if not parsed.has_section(part):
            parsed.add_section(part)
        parsed.set(part, key, value)
    return parsed


def test_systemd_accepts_our_units_beside_the_distribution_s(machine: Path) -> None:
    assert verified(machine) == ""


def test_boot_run_after_cloud_final_would_be_a_cycle(machine: Path) -> None:
    """So the test above can fail. systemd chooses which job of the cycle it drops: it may be ours."""
    path = machine / "etc/systemd/system/pyinfra-solo.service"
    path.write_text(re.sub(r"^After=.*$", "After=cloud-final.service", path.read_text(), flags=re.MULTILINE))
    found = verified(machine)

    assert "Found ordering cycle on" in found
    assert re.search("(Found dependency|cycle) on pyinfra-solo.service/start", found)
    assert "deleted to break ordering cycle" in found


def test_fence_is_before_web_servers_and_the_boot_run_is_not() -> None:
    """The converge itself starts nginx, and would wait for itself."""
    fence = unit("pyinfra-solo-fence.service")["Unit"]
    assert {f"{name}.service" for name in WEB_SERVERS} <= set(fence["Before"].split())
    assert "pyinfra-solo.service" in fence["Before"]
    assert fence["DefaultDependencies"] == "no"
    assert "Before" not in unit("pyinfra-solo.service")["Unit"]


def test_gate_closes_before_units_stop() -> None:
    """They stop in the opposite order of their start."""
    shutdown = unit("pyinfra-solo-shutdown.service")
    assert shutdown["Unit"]["After"] == "multi-user.target"
    assert shutdown["Service"]["ExecStop"] == "/opt/pyinfra-solo/bin/pyinfra-solo-fence close"


def test_boot_run_is_retried_for_ever_and_does_not_hold_up_the_boot() -> None:
    """tests/test_errors.py holds the exit statuses after which it is not retried."""
    solo = unit("pyinfra-solo.service")
    assert solo["Service"]["Restart"] == "on-failure"
    assert solo["Unit"]["StartLimitIntervalSec"] == "0"
    assert "SuccessExitStatus" not in solo["Service"], "exit status 0 means ready, nothing else does"
    assert solo["Service"]["Type"] == "exec", "a long oneshot would hold up cloud-final"


@pytest.mark.parametrize("name", ["pyinfra-solo.service", "pyinfra-solo-fence.service"])
def test_output_goes_to_the_journal_and_to_the_console(name: str) -> None:
    service = unit(name)["Service"]
    assert service["StandardOutput"] == "journal+console"
    assert service["SyslogIdentifier"] == "pyinfra-solo"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_posix_shell(name: str) -> None:
    assert (UNITS / name).read_text().startswith("#!/bin/sh\n")
    subprocess.run(["dash", "-n", UNITS / name], check=True)


def header(name: str) -> dict[str, set[str]]:
    """Read the LSB header of a SysV script."""
    text = (UNITS / name).read_text()
    inside = text.split("### BEGIN INIT INFO\n")[1].split("### END INIT INFO")[0]
    pairs = [line.removeprefix("# ").split(":", 1) for line in inside.splitlines()]
    return {key: set(value.split()) for key, value in pairs}


@pytest.mark.parametrize("name", ["pyinfra-solo", "pyinfra-solo-fence"])
def test_sysv_headers_are_complete(name: str) -> None:
    """insserv(8) warns of each of these that is missing."""
    found = header(f"{name}.lsb")
    assert found["Provides"] == {name}
    assert {"Required-Start", "Required-Stop", "Default-Start", "Default-Stop", "Short-Description"} <= set(
        found
    )
    assert found["Default-Start"] == {"2", "3", "4", "5"}


def test_sysv_fence_is_before_web_servers_and_the_boot_run() -> None:
    assert header("pyinfra-solo-fence.lsb")["X-Start-Before"] >= WEB_SERVERS | {"pyinfra-solo"}
    solo = header("pyinfra-solo.lsb")
    assert {"$network", "$remote_fs"} <= solo["Required-Start"]
    assert WEB_SERVERS | {"pyinfra-solo-fence"} <= solo["Should-Start"], "after them, and without them"
    assert "pyinfra-solo-fence" not in solo["Required-Start"], "a failed fence stops no run under OpenRC"


def test_web_server_of_systemd_is_declined_until_it_may_start(tmp_path: Path) -> None:
    """Its command's exit status: 1 declines the start without a failure (systemd.service(5), ExecCondition)."""
    line = re.search(
        r"^ExecCondition=\+/bin/sh -c '(.*)'$", (UNITS / "web-server.conf").read_text(), re.MULTILINE
    )
    assert line
    command = re.sub(r"(?<![\w/])/(run|opt)/", rf"{tmp_path}/\1/", line[1]).replace("%N", "nginx")

    def asked() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["dash", "-c", command], capture_output=True, text=True, check=False, timeout=10
        )

    assert asked().returncode == 0, "the engine is not installed any more"
    put(tmp_path / "opt/pyinfra-solo/bin/pyinfra-solo")
    (tmp_path / "run/pyinfra-solo").mkdir(parents=True)
    assert asked().returncode == 1
    assert "nginx is not started: the configuration of this machine is not loaded" in asked().stderr
    assert (tmp_path / "run/pyinfra-solo/waiting/nginx").exists()
    put(tmp_path / "run/pyinfra-solo/web-servers")
    assert asked().returncode == 0


def test_upstart_fence_holds_up_web_servers_and_rc() -> None:
    """rc starts a SysV nginx. No maintained distribution has Upstart, so only the form is checked."""
    fence = (UNITS / "pyinfra-solo-fence.conf").read_text()
    start = re.search(r"^start on \((.*)\)$", fence, re.MULTILINE)
    assert start
    events = set(start[1].split(" or "))
    assert {f"starting {name}" for name in WEB_SERVERS} | {"starting rc RUNLEVEL=[2345]"} == events
    assert not re.search(r"^(task|respawn|exec|script)\b", fence, re.MULTILINE), (
        "once a boot, and it stays up"
    )
    assert "\nstop on runlevel [016]\n" in fence
    assert "\npre-stop exec /opt/pyinfra-solo/bin/pyinfra-solo-fence close\n" in fence
    web = (UNITS / "pyinfra-solo-fence-web.conf").read_text()
    start = re.search(r"^start on \((.*)\)$", web, re.MULTILINE)
    assert start
    assert set(start[1].split(" or ")) == {f"starting {name}" for name in WEB_SERVERS}
    assert re.search(r"^task$", web, re.MULTILINE), "the start of a web server waits for its end"
    subprocess.run(
        ["dash", "-n"], input=web.split("\nscript\n")[1].split("\nend script")[0], text=True, check=True
    )
    solo = (UNITS / "pyinfra-solo.conf").read_text()
    assert "started pyinfra-solo-fence" in solo
    assert solo.count("\nexec ") == 1


def fence(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the fence with every path of its own below `root`, in a mount namespace of its own."""
    text = (UNITS / "pyinfra-solo-fence").read_text()
    moved = re.sub(r"(?<![\w/])/(run|var|usr|etc)/", rf"{root}/\1/", text)
    command = ["unshare", "--mount", "dash", "-c", moved, "fence", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_fence_closes_the_gate_and_removes_older_health_files(tmp_path: Path) -> None:
    gate = put(tmp_path / "run/pyinfra-solo/gate/ping.html", "ok").parent
    put(tmp_path / "run/pyinfra-solo/statement.json", "{}")
    old = [put(tmp_path / name) for name in ("var/www/html/ping.html", "srv/a b/up.txt")]
    put(tmp_path / "etc/pyinfra-solo/stale", f"# of 2019\n\n{tmp_path}/srv/a b/up.txt\n{tmp_path}/srv/none")
    done = fence(tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(gate.iterdir()) == []
    assert gate.stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "run/pyinfra-solo/statement.json").exists()
    assert not any(path.exists() for path in old)
    for path in old:
        assert f"fence: removed {path}" in done.stderr
    assert fence(tmp_path).returncode == 0


def test_fence_leaves_links_into_the_gate_and_removes_others(tmp_path: Path) -> None:
    gate = tmp_path / "run/pyinfra-solo/gate/ping.html"
    ours, theirs = tmp_path / "var/www/html/ping.html", tmp_path / "var/www/ping.html"
    put(tmp_path / "elsewhere", "ok")
    ours.parent.mkdir(parents=True)
    ours.symlink_to(gate)
    theirs.symlink_to(tmp_path / "elsewhere")
    assert fence(tmp_path).returncode == 0
    assert ours.is_symlink()
    assert not theirs.is_symlink()
    assert (tmp_path / "elsewhere").exists()


def test_fence_removes_no_folder_and_fails(tmp_path: Path) -> None:
    """A document root that is named by mistake must not be lost; the machine stays out of service."""
    site = put(tmp_path / "srv/site/index.html")
    put(tmp_path / "etc/pyinfra-solo/stale", f"{site.parent}\n")
    done = fence(tmp_path)
    assert done.returncode != 0
    assert f"CANNOT REMOVE {site.parent}" in done.stderr
    assert site.exists()
    assert reason_of(tmp_path) == done.stderr.splitlines()[0].removeprefix("fence: ")
    assert reason_of(tmp_path).startswith(
        f"{FAILED}{site.parent}: no web server may start beside it. Remove it"
    )


def reason_of(root: Path) -> str:
    """Read the reason of the closed gate."""
    found = json.loads((root / "run/pyinfra-solo/closed.json").read_text())
    return str(found["reason"])


@pytest.mark.parametrize("name", ["var/www/html/ping.html", "srv/other/up.txt"])
@pytest.mark.parametrize("is_empty", [True, False])
def test_fence_does_not_fail_for_a_folder_that_another_account_made(
    tmp_path: Path, name: str, is_empty: bool
) -> None:
    """Else `mkdir ping.html` in a document root would keep web servers down."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    if not is_empty:
        put(folder / "index.html", "ok")
    for one in (folder, folder.parent):
        os.chown(one, 65534, 65534)
    put(tmp_path / "etc/pyinfra-solo/stale", f"{tmp_path}/srv/other/up.txt\n")
    done = fence(tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"fence: removed {folder}" in done.stderr
    assert not folder.exists()
    moved = [path.name for path in folder.parent.glob("*/index.html")]
    assert len(moved) == (0 if is_empty else 1), "what may be wanted is only renamed"


@pytest.mark.parametrize("way", ["public", "www"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_fence_is_led_nowhere_by_another_accounts_link(tmp_path: Path, way: str, is_folder: bool) -> None:
    """Else the app has root remove dpkg's `status`. `www` is root's link to the app's."""
    theirs, kept = tmp_path / "srv/shared", tmp_path / "lib/dpkg/status"
    put(kept / "list" if is_folder else kept, "all")
    theirs.mkdir(parents=True)
    (theirs / "public").symlink_to(kept.parent)
    (tmp_path / "srv/www").symlink_to("shared/./public")
    for path in (theirs, theirs / "public"):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    named = theirs / "public" if way == "public" else tmp_path / "srv/www"
    put(tmp_path / "etc/pyinfra-solo/stale", f"{named}/status\n")
    done = fence(tmp_path)
    assert [path.name for path in kept.parent.iterdir()] == ["status"]
    assert kept.is_dir() == is_folder
    assert done.returncode == 0, done.stderr
    assert not (named / "status").exists(), "no web server finds a health file there"


def test_fence_renames_no_folder_of_roots_in_another_accounts(tmp_path: Path) -> None:
    folder = put(tmp_path / "srv/shared/up.txt/index.html").parent
    os.chown(folder.parent, 65534, 65534)
    put(tmp_path / "etc/pyinfra-solo/stale", f"{folder}\n")
    assert fence(tmp_path).returncode != 0
    assert folder.exists()


@pytest.mark.parametrize("owner", [0, 65534])
def test_fence_follows_links_that_lead_to_their_owners_folder(tmp_path: Path, owner: int) -> None:
    """`current` of a deployment, root's or an account's."""
    stale = put(tmp_path / "srv/shop/releases/1/public/up.txt")
    (tmp_path / "srv/shop/current").symlink_to("releases/1")
    for path in (tmp_path / "srv/shop", *(tmp_path / "srv/shop").rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)
    put(tmp_path / "etc/pyinfra-solo/stale", f"{tmp_path}/srv/shop/current/public/up.txt\n")
    done = fence(tmp_path)
    assert done.returncode == 0, done.stderr
    assert not stale.exists()
    assert (tmp_path / "srv/shop/current").is_symlink()


def test_fence_empties_the_gates_folder_whatever_is_in_it(tmp_path: Path) -> None:
    put(tmp_path / "run/pyinfra-solo/gate/ping.html/index.html", "ok")
    assert fence(tmp_path).returncode == 0
    assert list((tmp_path / "run/pyinfra-solo/gate").iterdir()) == []


def test_reason_of_a_failed_fence_may_hold_any_name(tmp_path: Path) -> None:
    site = put(tmp_path / 'srv/a "b" \\ \x1b[2Jc/index.html').parent
    put(tmp_path / "etc/pyinfra-solo/stale", f"{site}\n")
    assert fence(tmp_path).returncode != 0
    assert "\x1b" not in reason_of(tmp_path)
    assert 'srv/a "b" \\ ?[2Jc: no web server' in reason_of(tmp_path)
    assert (tmp_path / "run/pyinfra-solo/fence.failed").read_text() == f"{reason_of(tmp_path)}\n"
    (site / "index.html").unlink()
    site.rmdir()
    assert fence(tmp_path).returncode == 0
    assert reason_of(tmp_path) == "booting"
    assert not (tmp_path / "run/pyinfra-solo/fence.failed").exists()


def test_fence_closes_the_gate_when_the_machine_goes_down(tmp_path: Path) -> None:
    gate = put(tmp_path / "run/pyinfra-solo/gate/ping.html", "ok").parent
    old = put(tmp_path / "var/www/html/ping.html")
    assert fence(tmp_path, "close").returncode == 0
    assert list(gate.iterdir()) == []
    assert reason_of(tmp_path) == "this machine is going down"
    assert old.exists(), "nothing else is done then"


SCRIPT = """#!/bin/sh
### BEGIN INIT INFO
# Provides:          nginx
# Required-Start:    $local_fs
### END INIT INFO
echo the real one
"""
HELD = """
for words in "start" "restart" "status" "stop"; do {script} $words; echo "$words $?"; done
DPKG_MAINTSCRIPT_PACKAGE=nginx {script} restart; echo "dpkg $?"
sed -n 2,6p {script}
"""


def test_fence_holds_the_scripts_of_web_servers(tmp_path: Path) -> None:
    """Where no systemd runs. What starts nothing has the script's own header, by which it is ordered."""
    script = put(tmp_path / "etc/init.d/nginx", SCRIPT)
    script.chmod(0o755)
    (tmp_path / "etc/init.d/caddy").symlink_to("nginx")
    text = (UNITS / "pyinfra-solo-fence").read_text()
    moved = re.sub(r"(?<![\w/])/(run|var|usr|etc)/", rf"{tmp_path}/\1/", text)
    whole = f"({moved}\n) && {HELD.format(script=script)}"
    done = subprocess.run(
        ["unshare", "--mount", "dash", "-c", whole], capture_output=True, text=True, check=True, timeout=10
    )
    assert done.stdout.splitlines() == [
        "start 1", "restart 1", "status 3", "stop 0", "dpkg 0", *SCRIPT.splitlines()[1:5],
        f"# pyinfra-solo-fence has mounted this over {script}.",
    ]  # fmt: skip
    assert "nginx is not started: this machine's own configuration is not loaded." in done.stderr
    assert "fence: nginx starts when this machine's own configuration is loaded" in done.stderr
    assert "caddy" not in done.stderr, "a link may lead to what other services share"
    assert [path.name for path in (tmp_path / "run/pyinfra-solo/waiting").iterdir()] == ["nginx"]


def test_fence_holds_no_web_server_after_the_configuration_was_loaded(tmp_path: Path) -> None:
    """As when it is started once more. An image of a running machine brings another boot's mark."""
    put(tmp_path / "etc/init.d/nginx", SCRIPT)
    mark = put(tmp_path / "run/pyinfra-solo/web-servers", Path("/proc/sys/kernel/random/boot_id").read_text())
    assert "nginx" not in fence(tmp_path).stderr
    mark.write_text("00000000-0000-4000-8000-000000000000\n")
    assert "fence: nginx starts when" in fence(tmp_path).stderr
    assert not mark.exists()


def test_fence_removes_the_others_when_one_cannot_be_removed(tmp_path: Path) -> None:
    """It fails then, and no web server starts: each Requires= it. Not even root removes a file of /proc."""
    other = put(tmp_path / "srv/up.txt")
    put(tmp_path / "run/pyinfra-solo/gate/ping.html", "ok")
    put(tmp_path / "etc/pyinfra-solo/stale", f"/proc/version\n{other}\n")
    done = fence(tmp_path)
    assert done.returncode != 0
    assert "CANNOT REMOVE /proc/version" in done.stderr
    assert not other.exists()
    assert list((tmp_path / "run/pyinfra-solo/gate").iterdir()) == []


def test_failed_fence_does_not_stop_the_boot_run() -> None:
    solo = unit("pyinfra-solo.service")["Unit"]
    assert "pyinfra-solo-fence.service" in solo["Wants"].split()
    assert "pyinfra-solo-fence.service" in solo["After"].split()
    assert not {"Requires", "BindsTo", "Requisite"} & set(solo)


def test_user_data_is_valid_by_cloud_init_s_schema(distribution: Path) -> None:
    text = (REPOSITORY / "bootstrap/user-data.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    schemas = distribution / "usr/lib/python3/dist-packages/cloudinit/config/schemas"
    schema = json.loads((schemas / "schema-cloud-config-v1.json").read_text())
    data = yaml.safe_load(text)
    checker = jsonschema.Draft4Validator(schema)
    assert [error.message for error in checker.iter_errors(data)] == []
    assert list(checker.iter_errors({**data, "write_files": "not a list"})), (
        "the schema is one that can refuse"
    )
    scripts = [file["content"] for file in data["write_files"] if file["permissions"] == "0755"]
    assert len(scripts) == 2
    for script in scripts:
        subprocess.run(["dash", "-n"], input=script, text=True, check=True)


def test_user_data_holds_valid_settings(tmp_path: Path) -> None:
    data = yaml.safe_load((REPOSITORY / "bootstrap/user-data.yaml").read_text())
    written = {file["path"]: file for file in data["write_files"]}
    file = written["/etc/pyinfra-solo/config.toml"]
    loaded = settings.load(put(tmp_path / "config.toml", file["content"]))
    assert loaded.ops.remotes == ("https://git.example.com/acme/ops.git",)
    assert file["permissions"] == "0600"
