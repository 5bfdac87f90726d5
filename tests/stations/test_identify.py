"""Identify the machine while the metadata service answers late, wrong or not at all."""

from __future__ import annotations

import io
import threading

import pytest

from pyinfra_solo import paths
from pyinfra_solo.clients.imds import V1OnlyError
from pyinfra_solo.errors import IdentityError
from pyinfra_solo.run.console import PlainConsole
from pyinfra_solo.run.run import Run
from pyinfra_solo.run.settings import Machine
from pyinfra_solo.stations.identify import Instance, identify
from pyinfra_solo.stations.resolve import stage_of
from tests.support.imds import Metadata
from tests.support.loopback import answer, canned_server

EC2 = Machine(ec2="yes")


def identified(run: Run, machine: Machine = EC2, *, known: bool = False, within: float = 20) -> Instance:
    with run.station("identify"):
        return identify(machine, known, within, run)


def waits(run: Run) -> list[str]:
    return [wait.why for wait in run.report.stations[0].waits]


def test_instance_has_every_fact_of_its_metadata(metadata: Metadata, run: Run) -> None:
    served = metadata.instance
    served.tags = {"Role": "web", "Stage": "production"}
    served.asg, served.lifecycle_state = "web-blue", "Pending:Wait"
    served.security_groups = ["default", "acme-web"]

    assert identified(run) == Instance(
        on_ec2=True, id=served.id, region="eu-west-1", zone="eu-west-1a", group="web-blue", lifecycle="Pending:Wait",
        security_groups=("default", "acme-web"),
        tags={"Role": "web", "Stage": "production", "aws:autoscaling:groupName": "web-blue"}, tags_from="metadata",
    )  # fmt: skip
    assert waits(run) == []


def test_instance_without_a_group_has_no_lifecycle(metadata: Metadata, run: Run) -> None:
    metadata.instance.tags = {"Role": "web"}
    found = identified(run)

    assert (found.group, found.lifecycle) == (None, None)


@pytest.mark.parametrize(
    "text",
    ["\u2603" * 256, "a\nb", "\x1b[2J\x00", "../../etc", "'; reboot #", " ", "\U0001f600" * 64],
    ids=["256 odd characters", "two lines", "an escape", "a path", "a shell", "a space", "beyond 16 bits"],
)
def test_tag_may_hold_any_text(metadata: Metadata, run: Run, text: str) -> None:
    metadata.instance.tags = {"Role": text, "k e/y:=+.@": text}

    assert dict(identified(run).tags) == {"Role": text, "k e/y:=+.@": text}


def test_a_tag_s_key_is_quoted_whole(metadata: Metadata, run: Run) -> None:
    """A slash or a space in a key is no part of the request's path."""
    metadata.instance.tags = {"a/b c": "text"}

    assert dict(identified(run).tags) == {"a/b c": "text"}
    assert "/meta-data/tags/instance/a%2Fb%20c" in metadata.asked()


def test_passing_faults_are_waited_for_and_shown(metadata: Metadata, run: Run, output: io.StringIO) -> None:
    metadata.instance.tags = {"Role": "web"}
    metadata.service.refuse_tokens = 1
    metadata.service.faults.fail = [503]
    metadata.service.faults.drop = 1

    assert identified(run).tags == {"Role": "web"}
    assert len(waits(run)) == 3
    assert "PUT api/token answered 503" in waits(run)
    assert "PUT api/token answered 403" in waits(run)
    assert output.getvalue().count("identify: metadata service: ") == 3
    assert "; next try in 0." in output.getvalue()


def test_service_that_starts_late_is_waited_for(metadata: Metadata, run: Run) -> None:
    metadata.service.stop()
    metadata.instance.tags = {"Role": "web"}
    run.console = StartsService(metadata)

    assert identified(run).id == metadata.instance.id
    assert "refused" in waits(run)[0]


class StartsService(PlainConsole):
    """A console that starts the service at the first message of a wait."""

    def __init__(self, metadata: Metadata) -> None:
        super().__init__(io.StringIO())
        self.metadata = metadata
        self.once = threading.Lock()

    def say(self, station: str, text: str) -> None:
        del station
        if "next try in" in text and self.once.acquire(blocking=False):
            self.metadata.service.start()


@pytest.mark.parametrize("fault", ["off", "hang", "fail", "refuse", "drop"])
def test_service_that_never_answers_fails_in_time_with_what_to_set(
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


def test_machine_off_ec2_with_known_role_and_stage_requests_nothing(
    metadata: Metadata, run: Run, output: io.StringIO
) -> None:
    """Anybody on the network may answer there, with other tags or with another cloud's data."""
    assert identified(run, Machine(), known=True) == Instance(on_ec2=False)
    assert metadata.service.asked == []
    assert "not on EC2, by DMI: role and stage come from settings or flags" in output.getvalue()


def test_fake_service_off_ec2_does_not_change_the_stage_of_the_settings(metadata: Metadata, run: Run) -> None:
    metadata.instance.tags = {"Role": "web", "Stage": "production"}
    found = identified(run, Machine(stage="staging"))

    assert (found.on_ec2, found.id) == (False, metadata.instance.id)
    assert stage_of(None, "staging", found).name == "staging"
    assert stage_of(None, None, found).name == "production"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("class/dmi/id/sys_vendor", "Amazon EC2\n"),
        ("hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef\n"),
    ],
)
def test_machine_on_ec2_by_dmi_or_hypervisor_believes_its_tags(
    metadata: Metadata, run: Run, file: str, text: str
) -> None:
    path = paths.ROOT / "sys" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    metadata.instance.tags = {"Stage": "production"}
    found = identified(run, Machine(), known=True)

    assert found.on_ec2
    assert stage_of(None, "staging", found).name == "production"


@pytest.mark.parametrize("vendor", ["QEMU", "Not Amazon EC2", "\udcff", ""])
def test_service_that_refuses_off_ec2_is_soon_given_up(metadata: Metadata, run: Run, vendor: str) -> None:
    """A firewall that answers 403 at 169.254.169.254 would cost each run limits.metadata."""
    path = paths.ROOT / "sys/class/dmi/id/sys_vendor"
    path.parent.mkdir(parents=True)
    path.write_bytes(vendor.encode(errors="surrogateescape"))
    metadata.service.refuse_tokens = 10**6
    with pytest.raises(IdentityError) as raised:
        identified(run, Machine(), within=120)

    assert str(raised.value).startswith(
        "DMI does not say that this machine is on EC2. The metadata service did"
    )
    assert str(raised.value).endswith("machine.role and machine.stage; on EC2 set machine.ec2 = 'yes'.")
    assert sum(wait.seconds for wait in run.report.stations[0].waits) <= 2


ID, REGION, ZONE = b"i-0123456789abcdef0", b"eu-west-1", b"eu-west-1a"
TAGS = [b"Role", b"web"]
PAGE = b"<!DOCTYPE html><title>Log in</title>"


def answers(*texts: bytes | None) -> list[bytes]:
    """Write a token's answer and these: 404 for None, a web page where the text is one."""
    pages = [answer("404 Not Found") if text is None else answer("200 OK", text) for text in texts]
    return [answer("200 OK", b"token"), *pages]


@pytest.mark.parametrize(
    "given",
    [
        [PAGE, ID, REGION, *TAGS, ZONE, None, b"web"],
        [ID, PAGE, REGION, *TAGS, ZONE, None, b"web"],
        [ID, REGION, PAGE, *TAGS, ZONE, None, b"web"],
        [ID, REGION, b"k" * 129, *TAGS, ZONE, None, b"web"],
        [ID, REGION, b"\n".join([b"k"] * 101), *TAGS, ZONE, None, b"web"],
        [ID, REGION, b"Role", b"v" * 257, b"web", ZONE, None, b"web"],
        [ID, REGION, b"Role", None, *TAGS, ZONE, None, b"web"],
        [ID, REGION, *TAGS, PAGE, ZONE, None, b"web"],
        [ID, REGION, *TAGS, ZONE, PAGE, None, b"web"],
        [ID, REGION, *TAGS, ZONE, None, PAGE, b"web"],
    ],
    ids=[
        "id", "region", "tags", "long key", "101 keys", "long value", "no value", "zone", "lifecycle", "groups",
    ],
)  # fmt: skip
def test_answer_that_has_not_the_documented_form_is_retried(
    run: Run, monkeypatch: pytest.MonkeyPatch, given: list[bytes | None]
) -> None:
    """A proxy's page is no identity: the machine would have no role, which is never tried again."""
    with canned_server(*answers(*given)) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        found = identified(run)

    assert (found.id, found.region, found.zone) == (ID.decode(), REGION.decode(), ZONE.decode())
    assert (found.tags, found.lifecycle, found.security_groups) == ({"Role": "web"}, None, ("web",))
    assert len(waits(run)) == 1


def test_answers_that_never_have_the_documented_form_are_an_outage(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with canned_server(answer("200 OK", PAGE)) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        with pytest.raises(IdentityError, match="GET instance-id answered with other text: '<!DOCTYPE"):
            identified(run, within=0.3)


@pytest.mark.parametrize("known", [True, False])
def test_machine_set_as_not_on_ec2_requests_nothing(metadata: Metadata, run: Run, known: bool) -> None:
    assert identified(run, Machine(ec2="no"), known=known) == Instance(on_ec2=False)
    assert metadata.service.asked == []


def test_service_of_version_1_alone_fails_at_once(metadata: Metadata, run: Run) -> None:
    metadata.service.version_1_only = True
    with pytest.raises(V1OnlyError):
        identified(run)
    assert waits(run) == []


def test_service_of_another_cloud_does_not_identify(metadata: Metadata, run: Run) -> None:
    """OpenStack answers at the same address, without tokens."""
    metadata.service.version_1_only = True
    with pytest.raises(IdentityError, match=r"DMI does not say .*IMDSv1 only.*Set machine\.ec2 = 'no'"):
        identified(run, Machine())


def test_service_without_an_instance_id_is_not_ec2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with canned_server(answer("200 OK", b"token"), answer("404 Not Found")) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        with pytest.raises(IdentityError, match=r"has no instance-id\. Is this an EC2 instance"):
            identified(run)


def test_tags_disabled_and_no_api_is_an_error_with_what_to_enable(metadata: Metadata, run: Run) -> None:
    metadata.instance.tags = None
    with pytest.raises(IdentityError, match="--instance-metadata-tags enabled"):
        identified(run, Machine(ec2="yes", tags="metadata"))


def test_tags_set_to_none_are_not_requested(metadata: Metadata, run: Run) -> None:
    metadata.instance.tags = {"Role": "web"}
    found = identified(run, Machine(ec2="yes", tags="none"))

    assert (found.tags, found.tags_from) == ({}, "nowhere, by settings")
    assert not any("tags" in path for path in metadata.asked())
