"""Station identify: this machine's id, place, groups and tags, from the metadata service and the EC2 API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from pyinfra_solo.clients import ec2 as aws
from pyinfra_solo.clients.imds import Metadata, MetadataUnavailableError, V1OnlyError
from pyinfra_solo.errors import IdentityError
from pyinfra_solo.run.run import Progress
from pyinfra_solo.run.settings import Machine
from pyinfra_solo.system.deadline import Deadline, retry

_OPTIONAL_WAIT = 2.0
"""Seconds to wait for a metadata service on a machine that does not need one."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """This machine as EC2 describes it. Outside of EC2 all fields are empty."""

    id: str | None = None
    zone: str | None = None
    group: str | None = None
    """The Auto Scaling group's name."""
    security_groups: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    tags_from: str = "nowhere"


def identify(machine: Machine, known: bool, timeout: float, progress: Progress) -> Instance:
    """Ask the metadata service, and the EC2 API for tags, who this machine is. Raises IdentityError.

    known: settings or flags give role and stage, so that the machine can do without EC2. timeout: seconds.
    """
    if machine.ec2 == "no":
        progress.say("not on EC2, by settings: role and stage come from settings or flags")
        return Instance()
    needed = machine.ec2 == "yes" or not known or _dmi_says_ec2()
    deadline = progress.deadline.sooner(timeout if needed else _OPTIONAL_WAIT)
    try:
        with Metadata() as metadata:
            instance = _describe(_Service(metadata, deadline, progress), machine)
    except (V1OnlyError, MetadataUnavailableError) as error:
        if not needed:  # other clouds answer at that address too
            progress.say(f"not on EC2; role and stage come from settings or flags ({error})")
            return Instance()
        if isinstance(error, V1OnlyError):
            raise
        problem = IdentityError(
            f"The metadata service did not identify this machine ({error}). On a machine that is not on EC2, "
            "set machine.ec2 = 'no', machine.role and machine.stage."
        )
        problem.instance_id = error.instance_id
        raise problem from error
    progress.say(
        f"{instance.id} in {instance.zone}, group {instance.group or 'none'}, tags from {instance.tags_from}"
    )
    return instance


@dataclass(frozen=True)
class _Service:
    """The metadata service, asked until it answers or the deadline comes."""

    metadata: Metadata
    deadline: Deadline
    progress: Progress

    def get(self, path: str) -> str | None:
        return retry(
            "metadata service",
            lambda timeout: self.metadata.get(f"meta-data/{path}", timeout),
            deadline=self.deadline, retried=(MetadataUnavailableError,), waited=self.progress.waited,
        )  # fmt: skip

    def required(self, path: str) -> str:
        value = self.get(path)
        if not value:
            raise IdentityError(f"The metadata service has no {path}. Is this an EC2 instance?")
        return value.strip()


def _describe(service: _Service, machine: Machine) -> Instance:
    identity = service.required("instance-id")
    try:
        tags, tags_from = _tags(service, identity, machine)
        return Instance(
            id=identity,
            zone=service.required("placement/availability-zone"),
            group=tags.get("aws:autoscaling:groupName"),
            security_groups=tuple(
                name for name in (service.get("security-groups") or "").split("\n") if name
            ),
            tags=tags,
            tags_from=tags_from,
        )
    except IdentityError as error:
        error.instance_id = identity
        raise


def _tags(service: _Service, identity: str, machine: Machine) -> tuple[dict[str, str], str]:
    if machine.tags == "none":
        return {}, "nowhere, by settings"
    keys = service.get("tags/instance/") if machine.tags in ("auto", "metadata") else None
    if keys is not None:
        names = [key for key in keys.split("\n") if key]
        return {
            name: service.get(f"tags/instance/{quote(name, safe='')}") or "" for name in names
        }, "metadata"
    if machine.tags == "metadata":
        raise IdentityError(
            "Instance tags are not enabled in the metadata service. Enable them "
            "(aws ec2 modify-instance-metadata-options --instance-metadata-tags enabled), or set machine.tags = 'auto'."
        )
    region = service.required("placement/region")
    tags = retry(
        "EC2 API",
        lambda _timeout: aws.instance_tags(identity, region),
        deadline=service.deadline, retried=(aws.ApiUnavailableError,), waited=service.progress.waited,
    )  # fmt: skip
    return tags, "the EC2 API"


def _dmi_says_ec2() -> bool:
    """Read DMI, or Xen's uuid (EC2 User Guide, "Detect whether a host is an EC2 instance")."""
    for path, start in (("/sys/class/dmi/id/sys_vendor", "Amazon EC2"), ("/sys/hypervisor/uuid", "ec2")):
        try:
            if Path(path).read_text().startswith(start):
                return True
        except OSError:
            continue
    return False
