"""A machine boots, becomes what its tags or security groups say, and answers 200 only then."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.asking import before_opening, gate_is_open, opened_at, page, statement
from tests.lab.fleet import Fleet, changed, report, solo, status, wait_for_exit
from tests.lab.health import Health
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.programs import wait_for

pytestmark = pytest.mark.lab

LINE = ["close gate", "identify", "fetch", "prepare", "resolve", "converge", "judge", "open gate"]
NOT_YET = {0, 503}
"""Refused or lost, Debian's default site, and our own site with a closed gate."""


@pytest.fixture(scope="module")
def booted(lab: Lab, fleet: Fleet) -> Iterator[dict[str, Health]]:
    """A web by its tags, one by its security groups, and a worker: their first boots, all at once."""
    machines = [
        fleet.machine("web1"),
        fleet.machine("web2", tags={"Stage": "staging"}, groups=["default", "shop-web"]),
        fleet.machine("worker1", tags={"Role": "worker", "Stage": "production"}),
    ]
    checkers = {machine.name: lab.health(machine) for machine in machines}
    for machine in machines:
        machine.power_on()
    for machine in machines:
        wait_for_exit(machine, 0)
    yield checkers
    for machine in machines:
        lab.discard(machine)


@pytest.fixture
def web1(booted: dict[str, Health]) -> BootedMachine:
    """The web by its tags."""
    booted["web1"].wait_for_200()
    return booted["web1"].machine


@pytest.mark.parametrize("name", ["web1", "web2"])
def test_the_first_200_comes_after_the_gate_opened(booted: dict[str, Health], name: str) -> None:
    health = booted[name]
    health.wait_for_200()
    before = before_opening(health.machine, health)
    assert before, "the machine was polled from power-on"
    assert {check.status for check in before} <= NOT_YET, health.story()
    first = health.first_200()
    assert first is not None
    assert first >= opened_at(health.machine)


def test_a_successful_boot_runs_all_stations_and_opens_the_gate_last(web1: BootedMachine) -> None:
    stations = report(web1)["stations"]
    assert [station["name"] for station in stations] == LINE
    assert {station["outcome"] for station in stations} == {"ok"}
    ended = [station["started"] + station["seconds"] for station in stations]
    assert ended == sorted(ended)


def test_a_security_group_gives_the_role_that_roles_toml_maps_it_to(booted: dict[str, Health]) -> None:
    machine = booted["web2"].machine
    found = report(machine)
    assert (found["role"], found["stage"]) == ("web", "staging")
    detail = next(station["detail"] for station in found["stations"] if station["name"] == "resolve")
    assert "'shop-web' ('*-web' in roles/roles.toml)" in detail[0]


def test_the_health_file_says_ok_and_forbids_caching(web1: BootedMachine) -> None:
    for host in ("", "10.77.0.20", "shop.example.com", "_"):
        answer = page(web1, "/ping.html", host=host)
        assert (answer.status, answer.body) == (200, "ok"), host
        assert answer.headers["cache-control"] == "no-store"


def test_the_gates_other_files_are_not_served(web1: BootedMachine) -> None:
    for path in ("/statement.json", "/closed.json", "/ping.html/..%2fstatement.json"):
        assert page(web1, path).status == 404, path


def test_nginx_serves_the_app_from_the_wanted_release(fleet: Fleet, web1: BootedMachine) -> None:
    answer = page(web1, "/", host="shop.example.com")
    assert answer.status == 200
    assert json.loads(answer.body)["release"] == fleet.app.tip()[:12]


def test_report_events_statement_status_journal_and_console_agree(fleet: Fleet, web1: BootedMachine) -> None:
    last, now, vouched = report(web1), status(web1), statement(web1)
    instance = fleet.lab.instances["web1"].id
    assert now["ready"]
    assert now["last_run"] == last
    # `status` shows checks without the secrets of their roles.
    shown = [{key: value for key, value in check.items() if key != "secrets"} for check in vouched["checks"]]
    assert now["gate"]["statement"] == {**vouched, "checks": shown}
    for found in (last, vouched):
        assert (found["role"], found["stage"], found["sha"]) == ("web", "production", fleet.sha)
        assert found["instance_id"] == instance
        assert found["run"] == last["run"]
    names = [operation["name"] for operation in last["operations"]]
    assert len(names) > 10
    assert [event["name"] for event in events(web1, last["run"], "OperationEnded")] == names
    journal, console = web1.journal("pyinfra-solo"), web1.console()
    for number, name in enumerate(names, 1):
        line = f"converge: {number}/{len(names)} {name}: "
        assert line in journal
        assert line in console
    page_of_status = solo(web1, "status")[1]
    for word in ("web, production", instance, fleet.sha[:12], "gate      open", last["run"]):
        assert word in page_of_status


PROBE = """\
import os, socket
def tried(do):
    try:
        do()
    except OSError as error:
        return error.strerror or str(error)
    return "done"
print(
    "probe:",
    tried(lambda: open("/srv/shop/shared/probe", "w").close()), "|",
    tried(lambda: open("/var/lib/probe", "w").close()), "|",
    tried(lambda: socket.socket(socket.AF_PACKET)), "|",
    tried(lambda: socket.create_connection(("169.254.169.254", 80), 5).close()),
)
"""


@pytest.mark.parametrize(("name", "unit"), [("web1", "shop"), ("worker1", "shop-worker")])
def test_the_app_is_restricted_while_it_serves(booted: dict[str, Health], name: str, unit: str) -> None:
    machine = booted[name].machine
    shown = machine.run(f"systemd-analyze security --no-pager --threshold=25 {unit}.service")
    assert shown.ok, shown.stdout
    pid = machine.run(f"systemctl show --value -p MainPID {unit}", check=True).stdout.strip()
    fields = dict(line.split(":\t") for line in machine.read(f"/proc/{pid}/status").splitlines())
    assert (fields["NoNewPrivs"], fields["Seccomp"], int(fields["CapBnd"], 16)) == ("1", "2", 0)
    if unit == "shop":
        assert page(machine, "/").status == 200
    else:
        jobs = machine.journal(unit).count(" done")
        wait_for("another job", lambda: machine.journal(unit).count(" done") > jobs, timeout=30)


@pytest.fixture
def probed(booted: dict[str, Health]) -> Iterator[BootedMachine]:
    """The worker, whose unit runs PROBE before each start."""
    machine = booted["worker1"].machine
    machine.write("/usr/local/lib/probe.py", PROBE)
    probe = "[Service]\nExecStartPre=/usr/bin/python3 /usr/local/lib/probe.py\n"
    machine.write(f"{DROP_INS}/80-probe.conf", probe)
    yield machine
    machine.run(f"rm -rf {DROP_INS}; systemctl daemon-reload; systemctl restart shop-worker", check=True)


DROP_INS = "/run/systemd/system/shop-worker.service.d"


def probe(machine: BootedMachine) -> list[str]:
    """Restart the worker, and return what its unit lets PROBE do."""
    machine.run("systemctl daemon-reload && systemctl restart shop-worker", check=True)
    found = machine.run("journalctl -b -q -o cat -t shop-worker | grep ^probe: | tail -1", check=True).stdout
    return found.removeprefix("probe: ").strip().split(" | ")


def test_the_app_writes_its_own_folder_and_reaches_no_metadata(probed: BootedMachine) -> None:
    refused = ["Read-only file system", "Address family not supported by protocol", "timed out"]
    assert probe(probed) == ["done", *refused]
    probed.write(f"{DROP_INS}/90-lab.conf", "[Service]\nIPAddressDeny=\n")
    assert probe(probed)[3] == "done"


def events(machine: BootedMachine, run: str, kind: str) -> list[dict[str, str]]:
    """Return the events of one kind from a run's events file."""
    text = machine.read(f"/var/lib/pyinfra-solo/reports/{run}.events")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if line["event"] == kind]


def test_a_worker_without_a_port_opens_its_gate_by_its_checks(booted: dict[str, Health]) -> None:
    health = booted["worker1"]
    machine = health.machine
    assert status(machine)["ready"]
    assert gate_is_open(machine)
    assert {check.status for check in health.timeline} <= {0, 404}
    assert [finding["check"] for finding in report(machine)["findings"]] == ["unit shop-worker"]
    assert "/run/service-" not in machine.run("ss -lxn").stdout


@pytest.mark.parametrize("how", ["reboot", "power"])
def test_a_second_boot_changes_nothing_and_opens_only_when_judged(
    booted: dict[str, Health], web1: BootedMachine, how: str
) -> None:
    health, first = booted["web1"], report(web1)
    if how == "reboot":
        web1.reboot()
    else:
        web1.power_off()
        web1.power_on()
    since = health.mark()
    found = wait_for_exit(web1, 0)
    health.wait_for_200()
    assert found["boot_id"] != first["boot_id"]
    assert changed(web1) == []
    assert len(found["operations"]) == len(first["operations"])
    statuses = {check.status for check in before_opening(web1, health, since)}
    assert statuses <= {0, 503}, health.story(since)


AT_ONCE = "[Service]\nExecStartPre=\nExecStart=\nExecStart=/bin/true\n"
"""In apt-daily.service: all that decides whether it may start, and nothing of what it would download."""


def test_unattended_upgrades_start_in_service_but_not_during_a_run(web1: BootedMachine) -> None:
    web1.write("/run/systemd/system/apt-daily.service.d/90-lab.conf", AT_ONCE)
    web1.run("systemctl daemon-reload", check=True)
    start = "systemctl start apt-daily.service"
    result = "systemctl show --value -p Result apt-daily.service"
    assert web1.run("systemctl is-active pyinfra-solo.service").ok
    web1.run(start, check=True)
    assert web1.run(result).stdout.strip() == "success"
    web1.run(f"flock /run/pyinfra-solo/lock {start}")
    assert web1.run(result).stdout.strip() == "exec-condition"
    web1.run(start, check=True)
    assert web1.run(result).stdout.strip() == "success"


def test_a_machine_in_service_has_no_failed_unit_and_no_waiting_job(web1: BootedMachine) -> None:
    web1.wait_running()
    assert web1.run("systemctl list-jobs --no-legend").stdout.strip() in ("", "No jobs running.")


def test_an_app_that_cannot_be_imported_is_named_by_its_log(fleet: Fleet, web1: BootedMachine) -> None:
    """gunicorn reports that it is ready before its workers import the app."""
    fleet.app.commit({"shop.py": "import shopp\n"}, "a mistake", branch="broken", parent=fleet.app.tip())
    code, _, stderr = solo(web1, "run", "--data", "app_ref=broken")
    assert code == 30, stderr
    assert "answered 502 (the log of shop: ModuleNotFoundError: No module named 'shopp')" in stderr
    assert page(web1, "/ping.html").status == 503
    code, _, stderr = solo(web1, "run")
    assert code == 0, stderr


def test_a_path_that_the_app_may_write_and_that_is_missing_is_named(web1: BootedMachine) -> None:
    code, _, stderr = solo(web1, "run", "--data", 'app_writable=["/srv/none"]')
    assert code == 1, stderr
    assert "could not restart: shop.service: Failed " in stderr
    assert "/srv/none: No such file or directory. See its log: journalctl -u shop" in stderr
    code, _, stderr = solo(web1, "run")
    assert code == 0, stderr
