"""The EC2 API: the tags of an instance, from moto's server, and from one that refuses."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyinfra_solo.clients import ec2
from pyinfra_solo.clients.ec2 import ApiRefusedError, ApiUnavailableError
from pyinfra_solo.run.settings import Machine
from pyinfra_solo.stations.identify import identify
from tests.support.imds import Metadata
from tests.support.line import new_run
from tests.support.loopback import NOWHERE, answer, canned_server
from tests.support.machine import ENGINE, LocalMachine
from tests.support.programs import run as run_command

REGION = "eu-west-1"


@dataclass
class Cloud:
    """The API, and an instance in it."""

    api: Any
    id: str

    def tag(self, **tags: str) -> None:
        self.api.create_tags(
            Resources=[self.id], Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
        )


def error(status: str, code: str) -> bytes:
    """As EC2 says it (EC2 API Reference, error codes)."""
    body = f"<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>"
    return answer(status, body.encode(), "Content-Type: text/xml")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials that only an emulator takes; nothing is asked of any real service."""
    for words, value in {
        "ACCESS_KEY_ID SECRET_ACCESS_KEY": "testing",
        "ENDPOINT_URL EC2_METADATA_SERVICE_ENDPOINT": NOWHERE,
        "EC2_METADATA_V1_DISABLED": "true",
        "METADATA_SERVICE_TIMEOUT METADATA_SERVICE_NUM_ATTEMPTS": "1",
        "CONFIG_FILE SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        for name in words.split():
            monkeypatch.setenv(f"AWS_{name}", value)
    return monkeypatch


@pytest.fixture
def cloud(server: str, account: pytest.MonkeyPatch) -> Cloud:
    account.setenv("AWS_ENDPOINT_URL", server)
    api = ec2.client("ec2", REGION)
    started = api.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)  # one of moto's own
    return Cloud(api, started["Instances"][0]["InstanceId"])


def test_the_tags_of_an_instance_are_its_own(cloud: Cloud) -> None:
    assert ec2.instance_tags(cloud.id, REGION) == {}
    other = cloud.api.create_volume(AvailabilityZone=f"{REGION}a", Size=1)["VolumeId"]
    cloud.api.create_tags(Resources=[other], Tags=[{"Key": "Role", "Value": "disk"}])
    cloud.tag(Role="web", Stage="production")

    assert ec2.instance_tags(cloud.id, REGION) == {"Role": "web", "Stage": "production"}


@pytest.mark.parametrize(
    "text", ["\u2603\U0001f600" * 128, "<&>'\" ", ""], ids=["256 odd characters", "markup", "nothing"]
)
def test_a_tag_comes_back_as_it_was_set(cloud: Cloud, text: str) -> None:
    cloud.tag(Role=text)

    assert ec2.instance_tags(cloud.id, REGION) == {"Role": text}


def test_tags_that_are_not_in_the_metadata_come_from_the_api(cloud: Cloud, metadata: Metadata) -> None:
    metadata.instance.id, metadata.instance.tags = cloud.id, None
    cloud.tag(Role="worker")
    run = new_run()
    with run.station("identify"):
        found = identify(Machine(ec2="yes"), False, 30, run)

    assert (found.tags, found.tags_from) == ({"Role": "worker"}, "the EC2 API")


def test_an_api_that_fails_for_a_while_is_retried(account: pytest.MonkeyPatch, metadata: Metadata) -> None:
    metadata.instance.tags = None
    tags = b"<DescribeTagsResponse><tagSet><item><key>Role</key><value>web</value></item></tagSet></DescribeTagsResponse>"
    fault = error("503 Service Unavailable", "Unavailable")
    run = new_run()
    last = answer("200 OK", tags, "Content-Type: text/xml")
    with canned_server(fault, fault, last) as api, run.station("identify"):
        account.setenv("AWS_ENDPOINT_URL", api.url)
        found = identify(Machine(ec2="yes"), False, 30, run)

    assert found.tags == {"Role": "web"}
    waits = [(wait.what, wait.why) for wait in run.report.stations[0].waits]
    assert waits == [("EC2 API", "DescribeTags: Unavailable")]


@pytest.mark.parametrize("code", ["UnauthorizedOperation", "AccessDenied"])
def test_a_refusal_is_not_retried(account: pytest.MonkeyPatch, metadata: Metadata, code: str) -> None:
    metadata.instance.tags = None
    run = new_run()
    message = rf"refuses ec2:DescribeTags \({code}\). Allow it, or enable"
    with canned_server(error("403 Forbidden", code)) as api, run.station("identify"):
        account.setenv("AWS_ENDPOINT_URL", api.url)
        with pytest.raises(ApiRefusedError, match=message):
            identify(Machine(ec2="yes"), False, 30, run)
        assert len(api.asked) == 1


@pytest.mark.parametrize("code", ["AuthFailure", "RequestExpired", "RequestLimitExceeded"])
def test_a_fault_that_may_pass_is_an_outage(account: pytest.MonkeyPatch, code: str) -> None:
    """Keys that are not known everywhere yet, a clock that is not set yet, a whole group that boots."""
    with canned_server(error("400 Bad Request", code)) as api:
        account.setenv("AWS_ENDPOINT_URL", api.url)
        with pytest.raises(ApiUnavailableError, match=f"DescribeTags: {code}"):
            ec2.instance_tags("i-0a1", REGION)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"\xff\xfe",
        b"<html><body>log in</body></html>",
        b"<DescribeTagsResponse><tagSet><item><key>Role</key></item></tagSet></DescribeTagsResponse>",
    ],
)
def test_an_answer_that_is_no_list_of_tags_is_an_outage(account: pytest.MonkeyPatch, body: bytes) -> None:
    with canned_server(answer("200 OK", body)) as api:
        account.setenv("AWS_ENDPOINT_URL", api.url)
        with pytest.raises(ApiUnavailableError):
            ec2.instance_tags("i-0a1", REGION)


def test_an_api_that_is_not_there_is_an_outage(account: pytest.MonkeyPatch) -> None:
    del account
    with pytest.raises(ApiUnavailableError, match="Could not connect"):
        ec2.instance_tags("i-0a1", REGION)


def test_a_machine_whose_tags_nobody_gives_names_the_cure(
    account: pytest.MonkeyPatch, metadata: Metadata, tmp_path: Path
) -> None:
    """It said `DescribeTags: Could not connect to the endpoint URL`, and nothing else."""
    account.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url)
    metadata.instance.tags = None
    machine = LocalMachine(tmp_path / "machine")
    machine.configure(machine='ec2 = "yes"', limits="metadata = 2")
    reason = machine.solo("boot").expect(10).stderr.splitlines()[-1]

    assert f'DescribeTags: Could not connect to the endpoint URL: "{NOWHERE}/". So the tags of this' in reason
    assert "--instance-metadata-tags enabled), or let this machine reach the EC2 API, or set" in reason
    assert json.loads(machine.solo("report", "--json").stdout)["instance_id"] == metadata.instance.id


def test_a_machine_without_credentials_is_an_outage(account: pytest.MonkeyPatch) -> None:
    """An instance profile that was just attached is there a few seconds later."""
    account.delenv("AWS_ACCESS_KEY_ID")
    account.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ApiUnavailableError, match="DescribeTags: "):
        ec2.instance_tags("i-0a1", REGION)


def test_an_invalid_region_is_an_outage(account: pytest.MonkeyPatch) -> None:
    del account
    with pytest.raises(ApiUnavailableError, match="region"):
        ec2.instance_tags("i-0a1", "../eu")


def test_boto3_is_not_loaded_without_a_call() -> None:
    """It costs 0.2 s and 20 MB: a machine whose metadata service has the tags never needs it."""
    script = "import sys, pyinfra_solo.stations.identify; print('boto3' in sys.modules)"

    assert run_command([sys.executable, "-c", script], env={"PYTHONPATH": str(ENGINE)}).stdout == "False\n"
