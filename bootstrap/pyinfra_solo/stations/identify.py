"""Station identify: ask the metadata service and the EC2 API for this machine's id, groups and tags."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from pyinfra_solo.clients import ec2 as aws
from pyinfra_solo.clients.imds import Metadata, MetadataUnavailableError, V1OnlyError
from pyinfra_solo.errors import IdentityError
from pyinfra_solo.run.run import Progress
from pyinfra_solo.run.settings import Machine
from pyinfra_solo.system.deadline import Deadline, retry

_GROUP_TAG = "aws:autoscaling:groupName"
_OPTIONAL_WAIT = 2.0
"""Seconds to wait for a metadata service on a machine that does not need one."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """This machine as EC2 describes it. Outside of EC2 all fields but `on_ec2` are empty."""

    on_ec2: bool
    id: str | None = None
    region: str | None = None
    zone: str | None = None
    group: str | None = None
    """The Auto Scaling group's name."""
    lifecycle: str | None = None
    security_groups: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    tags_from: str = "nowhere"


def identify(machine: Machine, known: bool, timeout: float, progress: Progress) -> Instance:
    """Ask the metadata service, and the EC2 API for tags, who this machine is. Raises IdentityError.

    known: settings or flags give role and stage, so that the machine can do without EC2. timeout: seconds.
    """
    if machine.ec2 == "no":
        progress.say("not on EC2, by settings: role and stage come from settings or flags")
        return Instance(on_ec2=False)
    needed = machine.ec2 == "yes" or not known or _dmi_says_ec2()
    deadline = progress.deadline.sooner(timeout if needed else _OPTIONAL_WAIT)
    try:
        with Metadata() as metadata:
            instance = _ask(metadata, machine, deadline, progress)
    except V1OnlyError as error:  # other clouds answer at that address too
        if needed:
            raise
        progress.say(f"{error} Not on EC2; role and stage come from settings or flags")
        return Instance(on_ec2=False)
    except MetadataUnavailableError as error:
        if needed:
            problem = IdentityError(
                f"The metadata service did not identify this machine ({error}). On a machine that is not on EC2, "
                "set machine.ec2 = 'no', machine.role and machine.stage."
            )
            problem.instance_id = error.instance_id
            raise problem from error
        progress.say(f"no metadata service ({error}): not on EC2; role and stage come from settings or flags")
        return Instance(on_ec2=False)
    progress.say(
        f"{instance.id} in {instance.zone}, group {instance.group or 'none'}, tags from {instance.tags_from}"
    )
    return instance


def _ask(metadata: Metadata, machine: Machine, deadline: Deadline, progress: Progress) -> Instance:
    def get(path: str) -> str | None:
        return retry(
            "metadata service",
            lambda timeout: metadata.get(f"meta-data/{path}", timeout),
            deadline=deadline,
            retried=(MetadataUnavailableError,),
            waited=progress.waited,
        )

    def required(path: str) -> str:
        value = get(path)
        if not value:
            raise IdentityError(f"The metadata service has no {path}. Is this an EC2 instance?")
        return value.strip()

    identity = required("instance-id")
    try:
        return _describe(identity, get, required, machine, deadline, progress)
    except IdentityError as error:
        error.instance_id = identity
        raise


def _describe(
    identity: str,
    get: Callable[[str], str | None],
    required: Callable[[str], str],
    machine: Machine,
    deadline: Deadline,
    progress: Progress,
) -> Instance:
    region = required("placement/region")
    tags, tags_from = _tags(get, identity, region, machine, deadline, progress)
    return Instance(
        on_ec2=True,
        id=identity,
        region=region,
        zone=required("placement/availability-zone"),
        group=tags.get(_GROUP_TAG),
        lifecycle=get("autoscaling/target-lifecycle-state"),
        security_groups=tuple(name for name in (get("security-groups") or "").split("\n") if name),
        tags=tags,
        tags_from=tags_from,
    )


def _tags(
    get: Callable[[str], str | None],
    identity: str,
    region: str,
    machine: Machine,
    deadline: Deadline,
    progress: Progress,
) -> tuple[dict[str, str], str]:
    if machine.tags == "none":
        return {}, "nowhere, by settings"
    keys = get("tags/instance/") if machine.tags in ("auto", "metadata") else None
    if keys is not None:
        return {
            key: get(f"tags/instance/{quote(key, safe='')}") or "" for key in keys.split("\n") if key
        }, "metadata"
    if machine.tags == "metadata":
        raise IdentityError(
            "Instance tags are not enabled in the metadata service. Enable them "
            "(aws ec2 modify-instance-metadata-options --instance-metadata-tags enabled), or set machine.tags = 'auto'."
        )
    tags = retry(
        "EC2 API",
        lambda _timeout: aws.instance_tags(identity, region),
        deadline=deadline,
        retried=(aws.ApiUnavailableError,),
        waited=progress.waited,
    )
    return tags, "the EC2 API"


def _dmi_says_ec2() -> bool:
    """Read DMI (Nitro) or the hypervisor's uuid (Xen).

    EC2 User Guide, "Detect whether a host is an EC2 instance".
    """
    for path, start in (("/sys/class/dmi/id/sys_vendor", "Amazon EC2"), ("/sys/hypervisor/uuid", "ec2")):
        try:
            if Path(path).read_text().startswith(start):
                return True
        except OSError:
            continue
    return False
