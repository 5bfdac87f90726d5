"""A machine's identity: from its metadata, the EC2 API or its settings; never from its image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.asking import before_opening, drop_in, gate_is_open, statement, web
from tests.lab.aws import ADDRESS
from tests.lab.fleet import Fleet, report, status, wait_for_exit
from tests.lab.lab import Lab
from tests.lab.machine import BootedMachine
from tests.support.instance import Instance
from tests.support.web import Answer, WebServer

pytestmark = pytest.mark.lab

REFUSED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized to perform this
operation.</Message></Error></Errors><RequestID>ea966190-f9aa-478e-9ede-example</RequestID></Response>"""
"""An answer of the EC2 API (Amazon EC2 API Reference, Error codes)."""
HERE = 'role = "web"\nstage = "staging"'


def asks(machine: BootedMachine, endpoint: str) -> None:
    """The machine's boot run takes this for AWS; a run that failed is soon tried again."""
    drop_in(machine, f"[Service]\nEnvironment=AWS_ENDPOINT_URL={endpoint}\nRestartSec=1s\n")


def detail(machine: BootedMachine) -> str:
    """Return the details of station identify in the last run."""
    stations = report(machine)["stations"]
    return "\n".join(next(one["detail"] for one in stations if one["name"] == "identify"))


def test_tags_come_from_the_ec2_api_where_the_metadata_has_none(fleet: Fleet, lab: Lab) -> None:
    instance = lab.aws.launch(Instance(tags={"Role": "web", "Stage": "staging"}))
    instance.tags = None
    machine = fleet.machine("api1", instance=instance)
    asks(machine, lab.aws.endpoint)
    fleet.in_service(machine)
    assert detail(machine).endswith("tags from the EC2 API")
    assert statement(machine)["stage"] == "staging"
    assert statement(machine)["instance_id"] == instance.id


@pytest.fixture
def refusing(lab: Lab) -> Iterator[WebServer]:
    """An EC2 API that allows this machine's role nothing."""
    server = WebServer(lab.network, ADDRESS, lambda _asked: Answer(403, REFUSED), port=5001)
    server.start()
    yield server
    server.stop()


def test_a_refusing_ec2_api_is_named_and_asked_again(fleet: Fleet, lab: Lab, refusing: WebServer) -> None:
    machine = fleet.machine("api2", instance=Instance(tags=None))
    asks(machine, refusing.url)
    machine.power_on()
    found = wait_for_exit(machine, 10)
    assert found["station"] == "identify"
    assert found["error"].startswith(
        "The EC2 API refuses ec2:DescribeTags (UnauthorizedOperation). Allow it, or"
    )
    assert not gate_is_open(machine)
    assert status(machine)["gate"]["reason"] == found["error"]
    lab.instances["api2"].tags = {"Role": "web", "Stage": "production"}
    fleet.in_service(machine)


def test_a_machine_outside_ec2_takes_role_and_stage_from_its_settings(fleet: Fleet) -> None:
    """The metadata service there says that it is a worker of production."""
    settings = fleet.settings().replace('ec2 = "yes"', HERE)
    machine = fleet.machine("bare1", settings=settings, tags={"Role": "worker", "Stage": "production"})
    fleet.in_service(machine)
    assert "not on EC2, by DMI: role and stage come from settings or flags" in detail(machine)
    vouched = statement(machine)
    assert (vouched["role"], vouched["stage"], vouched["instance_id"]) == ("web", "staging", None)


def test_a_clone_of_a_machine_in_service_starts_closed_as_itself(fleet: Fleet, lab: Lab) -> None:
    golden = fleet.machine("golden")
    fleet.in_service(golden)
    copy = lab.clone(golden, "copy", web())
    health = lab.health(copy)
    copy.power_on()
    health.wait_for_200()
    found, vouched = wait_for_exit(copy, 0), statement(copy)
    early = {check.status for check in before_opening(copy, health)}
    assert early <= {0, 503}, health.story()
    assert lab.instances["copy"].id != lab.instances["golden"].id
    for one in (found, vouched):
        assert one["instance_id"] == lab.instances["copy"].id
    assert statement(golden)["instance_id"] == lab.instances["golden"].id
    assert [one["name"] for one in found["operations"] if one["changed"]] == []
