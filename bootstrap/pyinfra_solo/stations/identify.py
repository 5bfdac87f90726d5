"""Station identify: ask the metadata service and the EC2 API for this machine's id, groups and tags."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

from pyinfra_solo import paths
from pyinfra_solo.clients import ec2 as aws
from pyinfra_solo.clients.imds import Metadata, MetadataUnavailableError
from pyinfra_solo.errors import IdentityError
from pyinfra_solo.run.run import Progress
from pyinfra_solo.run.settings import Machine
from pyinfra_solo.system.deadline import Deadline, retry

T = TypeVar("T")
_GROUP_TAG = "aws:autoscaling:groupName"
_OFF_EC2 = 2.0
"""Seconds to wait for a metadata service where DMI does not say EC2."""


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.DOTALL)


# EC2 User Guide: "Resource IDs", "View tags using instance metadata" (keys; "Tag restrictions" also allows
# a space and a slash), "Tag your Amazon EC2 resources" (50 tags, and those of AWS; 256 characters).
# EC2 API Reference, CreateSecurityGroup (GroupName).
_ID = _form(r"i-[0-9a-f]{8,17}")
_PLACE = _form(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STATE = _form(r"[A-Za-z:]{1,64}")
_KEY = r"[A-Za-z0-9+=.,_:@ /-]{1,128}"
_KEYS = _form(rf"(?:{_KEY}(?:\n{_KEY}){{0,99}})?")
_VALUE = _form(r".{0,256}")
_GROUP = r"[A-Za-z0-9 ._:/()#,@\[\]+=&;{}!$*-]{1,255}"
_GROUPS = _form(rf"(?:{_GROUP}(?:\n{_GROUP})*)?")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """This machine as a metadata service describes it; all fields but `on_ec2` may be empty.

    on_ec2: settings or DMI say so. Elsewhere anybody may have answered, so settings outrank the tags.
    """

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

    known: settings or flags give role and stage: off EC2 nothing is asked then. timeout: seconds, on EC2.
    """
    if machine.ec2 == "no":
        progress.say("not on EC2, by settings: role and stage come from settings or flags")
        return Instance(on_ec2=False)
    on_ec2 = machine.ec2 == "yes" or _dmi_says_ec2()
    if not on_ec2 and known:
        progress.say("not on EC2, by DMI: role and stage come from settings or flags")
        return Instance(on_ec2=False)
    deadline = progress.deadline.sooner(timeout if on_ec2 else min(timeout, _OFF_EC2))
    try:
        with Metadata() as metadata:
            instance = _describe(_Service(metadata, deadline, progress), machine, on_ec2)
    except IdentityError as error:
        if on_ec2 and not isinstance(error, MetadataUnavailableError):
            raise
        raise _unidentified(error, on_ec2) from error
    progress.say(
        f"{instance.id} in {instance.zone}, group {instance.group or 'none'}, tags from {instance.tags_from}"
    )
    return instance


def _unidentified(error: IdentityError, on_ec2: bool) -> IdentityError:
    """Make the error that says what to set."""
    where, advice = (
        "",
        "On a machine that is not on EC2, set machine.ec2 = 'no', machine.role and machine.stage.",
    )
    if not on_ec2:
        where = "DMI does not say that this machine is on EC2. "
        advice = "Set machine.ec2 = 'no', machine.role and machine.stage; on EC2 set machine.ec2 = 'yes'."
    problem = IdentityError(f"{where}The metadata service did not identify this machine ({error}). {advice}")
    problem.instance_id = error.instance_id
    return problem


@dataclass(frozen=True)
class _Service:
    """The metadata service, asked until a deadline. Text that has not its documented form is an outage."""

    metadata: Metadata
    deadline: Deadline
    progress: Progress

    def get(self, path: str, form: re.Pattern[str]) -> str | None:
        """Return the text at `path` below meta-data/, None for one that is not there."""
        return self.retried("metadata service", lambda timeout: self._ask(path, form, timeout))

    def required(self, path: str, form: re.Pattern[str]) -> str:
        value = self.get(path, form)
        if value is None:
            raise IdentityError(f"The metadata service has no {path}. Is this an EC2 instance?")
        return value.strip("\n")

    def tags(self) -> dict[str, str] | None:
        """Return the instance's tags, None when the service does not have them."""
        return self.retried("metadata service", lambda _timeout: self._tags())

    def retried(self, what: str, attempt: Callable[[float], T]) -> T:
        return retry(
            what, attempt, deadline=self.deadline, retried=(MetadataUnavailableError, aws.ApiUnavailableError),
            waited=self.progress.waited,
        )  # fmt: skip

    def _ask(self, path: str, form: re.Pattern[str], timeout: float) -> str | None:
        if self.deadline.left() <= 0:
            raise MetadataUnavailableError(f"out of time before GET {path}")
        text = self.metadata.get(f"meta-data/{path}", timeout)
        if text is not None and not form.fullmatch(text.strip("\n")):
            raise MetadataUnavailableError(f"GET {path} answered with other text: {text[:40]!r}")
        return text

    def _tags(self) -> dict[str, str] | None:
        keys = self.get("tags/instance/", _KEYS)
        if keys is None:
            return None
        tags = {}
        for key in filter(None, keys.split("\n")):
            value = self.get(f"tags/instance/{quote(key, safe='')}", _VALUE)
            if (
                value is None
            ):  # it was removed meanwhile; or the machine would get a role without its tag Role
                raise MetadataUnavailableError(f"the tag {key!r} is listed and has no value")
            tags[key] = value
        return tags


def _describe(service: _Service, machine: Machine, on_ec2: bool) -> Instance:
    identity = service.required("instance-id", _ID)
    try:
        region = service.required("placement/region", _PLACE)
        tags, tags_from = _tags(service, identity, region, machine)
        return Instance(
            on_ec2=on_ec2,
            id=identity,
            region=region,
            zone=service.required("placement/availability-zone", _PLACE),
            group=tags.get(_GROUP_TAG),
            lifecycle=service.get("autoscaling/target-lifecycle-state", _STATE),
            security_groups=tuple(filter(None, (service.get("security-groups", _GROUPS) or "").split("\n"))),
            tags=tags,
            tags_from=tags_from,
        )
    except IdentityError as error:
        error.instance_id = identity
        raise


def _tags(service: _Service, identity: str, region: str, machine: Machine) -> tuple[dict[str, str], str]:
    if machine.tags == "none":
        return {}, "nowhere, by settings"
    tags = service.tags() if machine.tags in ("auto", "metadata") else None
    if tags is not None:
        return tags, "metadata"
    if machine.tags == "metadata":
        raise IdentityError(
            "Instance tags are not enabled in the metadata service. Enable them "
            "(aws ec2 modify-instance-metadata-options --instance-metadata-tags enabled), or set machine.tags = 'auto'."
        )
    return service.retried("EC2 API", lambda _timeout: aws.instance_tags(identity, region)), "the EC2 API"


def _dmi_says_ec2() -> bool:
    """Read DMI (Nitro) or the hypervisor's uuid (Xen).

    EC2 User Guide, "Detect whether a host is an EC2 instance".
    """
    for name, start in (("sys/class/dmi/id/sys_vendor", "Amazon EC2"), ("sys/hypervisor/uuid", "ec2")):
        try:
            if (paths.ROOT / name).read_text().startswith(start):
                return True
        except (OSError, ValueError):
            continue
    return False
