"""Who this machine is, while the metadata service and the EC2 API do what they do at boot."""

from __future__ import annotations

import io
import threading

import pytest

from pyinfra_solo.clients.imds import V1OnlyError
from pyinfra_solo.errors import IdentityError
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Machine
from pyinfra_solo.stations.identify import Instance, identify
from tests.support.imds import Metadata
from tests.support.line import new_run
from tests.support.loopback import NOWHERE, answer, canned_server

EC2 = Machine(ec2="yes")


@pytest.fixture
def heard() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def run(heard: io.StringIO) -> Run:
    return new_run(output=heard)


def identified(run: Run, machine: Machine = EC2, *, known: bool = False, within: float = 20) -> Instance:
    with run.station("identify"):
        return identify(machine, known, within, run)


def waits(run: Run) -> list[str]:
    return [wait.why for wait in run.report.stations[0].waits]


def test_an_instance_is_all_that_the_metadata_service_says(metadata: Metadata, run: Run) -> None:
    served = metadata.instance
    served.tags, served.asg, served.security_groups = (
        {"Role": "web", "Stage": "production"},
        "web-blue",
        ["default", "acme-web"],
    )
    served.lifecycle_state = "Pending:Wait"

    assert identified(run) == Instance(
        on_ec2=True, id=served.id, region="eu-west-1", zone="eu-west-1a", group="web-blue", lifecycle="Pending:Wait",
        security_groups=("default", "acme-web"),
        tags={"Role": "web", "Stage": "production", "aws:autoscaling:groupName": "web-blue"}, tags_from="metadata",
    )  # fmt: skip
    assert waits(run) == []


def test_an_instance_without_a_group_has_no_lifecycle(metadata: Metadata, run: Run) -> None:
    metadata.instance.tags = {"Role": "web"}
    found = identified(run)

    assert (found.group, found.lifecycle) == (None, None)


@pytest.mark.parametrize(
    "text",
    ["\u2603" * 256, "a\nb", "\x1b[2J\x00", "../../etc", "'; reboot #", " ", "\U0001f600" * 64],
    ids=["256 odd characters", "two lines", "an escape", "a path", "a shell", "a space", "beyond 16 bits"],
)
def test_a_tag_may_hold_any_text(metadata: Metadata, run: Run, text: str) -> None:
    metadata.instance.tags = {"Role": text, "k e/y:=+.@": text}

    assert dict(identified(run).tags) == {"Role": text, "k e/y:=+.@": text}


def test_a_tag_s_key_is_quoted_whole(metadata: Metadata, run: Run) -> None:
    """A slash or a question mark in a key is no part of the request's path."""
    metadata.instance.tags = {"a/b?c": "text"}

    assert dict(identified(run).tags) == {"a/b?c": "text"}
    assert "/meta-data/tags/instance/a%2Fb%3Fc" in metadata.asked()


def test_what_goes_wrong_for_a_while_is_waited_for_and_told(
    metadata: Metadata, run: Run, heard: io.StringIO
) -> None:
    metadata.instance.tags = {"Role": "web"}
    metadata.service.refuse_tokens = 1
    metadata.service.faults.fail = [503]
    metadata.service.faults.drop = 1

    assert identified(run).tags == {"Role": "web"}
    assert len(waits(run)) == 3
    assert "PUT api/token answered 503" in waits(run)
    assert "PUT api/token answered 403" in waits(run)
    assert heard.getvalue().count("identify: metadata service: ") == 3
    assert "; next try in 0." in heard.getvalue()


def test_a_service_that_is_late_is_waited_for(metadata: Metadata, run: Run) -> None:
    metadata.service.stop()
    metadata.instance.tags = {"Role": "web"}
    run.console = Starts(metadata)

    assert identified(run).id == metadata.instance.id
    assert "refused" in waits(run)[0]


class Starts:
    """A voice upon whose first word about a wait the service begins to serve."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.once = threading.Lock()

    def say(self, station: str, text: str) -> None:
        del station
        if "next try in" in text and self.once.acquire(blocking=False):
            self.metadata.service.start()

    def station(self, name: str, seconds: float | None, outcome: str) -> None: ...
    def operation(self, operation: object, number: int, of: int) -> None: ...
    def starting(self, name: str, number: int, of: int) -> None: ...


@pytest.mark.parametrize("fault", ["off", "hang", "fail", "refuse", "drop"])
def test_a_service_that_never_answers_fails_in_time_and_says_what_to_set(
    metadata: Metadata, run: Run, fault: str
) -> None:
    if fault == "off":
        metadata.service.stop()
    metadata.service.faults.hang = fault == "hang"
    metadata.service.faults.fail = [503] * 1000 if fault == "fail" else []
    metadata.service.refuse_tokens = 1000 if fault == "refuse" else 0
    metadata.service.faults.drop = 1000 if fault == "drop" else 0

    with pytest.raises(IdentityError, match=r"set machine.ec2 = 'no', machine.role and machine.stage"):
        identified(run, within=0.3)


def test_a_machine_that_need_not_be_on_ec2_does_without(
    metadata: Metadata, run: Run, heard: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    del metadata
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", NOWHERE)

    assert identified(run, Machine(), known=True, within=0.1) == Instance(on_ec2=False)
    assert "not on EC2; role and stage come from settings or flags" in heard.getvalue()


@pytest.mark.parametrize("known", [True, False])
def test_a_machine_that_is_said_not_to_be_on_ec2_asks_nobody(
    metadata: Metadata, run: Run, known: bool
) -> None:
    assert identified(run, Machine(ec2="no"), known=known) == Instance(on_ec2=False)
    assert metadata.service.asked == []


def test_version_1_alone_fails_at_once(metadata: Metadata, run: Run) -> None:
    metadata.service.version_1_only = True
    with pytest.raises(V1OnlyError):
        identified(run)
    assert waits(run) == []


def test_another_cloud_s_metadata_service_is_no_ec2_for_a_machine_that_need_not_be_on_it(
    metadata: Metadata, run: Run, heard: io.StringIO
) -> None:
    """OpenStack answers at the same address, and knows no tokens."""
    metadata.service.version_1_only = True

    assert identified(run, Machine(), known=True) == Instance(on_ec2=False)
    assert "IMDSv1 only" in heard.getvalue()


def test_a_service_without_an_instance_id_is_not_ec2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with canned_server(answer("200 OK", b"token"), answer("404 Not Found")) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        with pytest.raises(IdentityError, match=r"has no instance-id\. Is this an EC2 instance"):
            identified(run)


def test_tags_that_are_not_enabled_and_not_to_be_asked_of_the_api_are_told(
    metadata: Metadata, run: Run
) -> None:
    metadata.instance.tags = None
    with pytest.raises(IdentityError, match="--instance-metadata-tags enabled"):
        identified(run, Machine(ec2="yes", tags="metadata"))


def test_tags_that_are_not_wanted_are_not_asked_for(metadata: Metadata, run: Run) -> None:
    metadata.instance.tags = {"Role": "web"}
    found = identified(run, Machine(ec2="yes", tags="none"))

    assert (found.tags, found.tags_from) == ({}, "nowhere, by settings")
    assert not any("tags" in path for path in metadata.asked())
