"""An EC2 instance as its metadata describes it.

Paths as in the EC2 User Guide, "Instance metadata categories".
"""

import json
import secrets
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

ROLE = "lab"
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "LABACCESSKEY", "lab-secret", "lab-session"


@dataclass
class Instance:
    """Facts of an instance. Tags may hold any text; `tags=None`: disabled in the metadata."""

    id: str = field(default_factory=lambda: f"i-0{secrets.token_hex(8)}")
    tags: dict[str, str] | None = field(default_factory=dict)
    security_groups: list[str] = field(default_factory=lambda: ["default"])
    security_group_ids: list[str] = field(default_factory=list)
    region: str = "eu-west-1"
    az: str = "eu-west-1a"
    ami: str = "ami-0123456789abcdef0"
    type: str = "t3.small"
    account: str = "123456789012"
    asg: str = ""
    lifecycle_state: str = "InService"
    user_data: str | bytes = b""
    role: str = ROLE

    def all_tags(self) -> dict[str, str]:
        """Return the tags with the one that a scaling group sets."""
        group = {"aws:autoscaling:groupName": self.asg} if self.asg else {}
        return {**(self.tags or {}), **group}


def tree(instance: Instance, address: str, mac: str) -> dict[str, bytes]:
    """Map each path below a version, without slashes at its ends, to its answer."""
    text: dict[str, str] = {
        **{f"meta-data/{path}": value for path, value in _meta(instance, address, mac).items()},
        "dynamic/instance-identity/document": _document(instance, address),
    }
    absent = [path for path, value in text.items() if not value and "/tags/instance/" not in path]
    for path in absent:
        del text[path]
    answers = {path: value.encode() for path, value in text.items()}
    data = instance.user_data
    if data:
        answers["user-data"] = data if isinstance(data, bytes) else data.encode()
    return answers


def _meta(instance: Instance, address: str, mac: str) -> dict[str, str]:
    host_name = f"ip-{address.replace('.', '-')}.{instance.region}.compute.internal"
    ids = instance.security_group_ids or [
        f"sg-0{zlib.crc32(name.encode()):016x}" for name in instance.security_groups
    ]
    card = f"network/interfaces/macs/{mac}"
    plain = {
        "ami-id": instance.ami,
        "ami-launch-index": "0",
        "hostname": host_name,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": "on-demand",
        "instance-type": instance.type,
        "local-hostname": host_name,
        "local-ipv4": address,
        "mac": mac,
        "placement/availability-zone": instance.az,
        "placement/region": instance.region,
        "reservation-id": "r-0123456789abcdef0",
        "security-groups": "\n".join(instance.security_groups),
        "services/domain": "amazonaws.com",
        "services/partition": "aws",
        "autoscaling/target-lifecycle-state": instance.lifecycle_state if instance.asg else "",
        f"{card}/device-number": "0",
        f"{card}/interface-id": "eni-0123456789abcdef0",
        f"{card}/local-ipv4s": address,
        f"{card}/mac": mac,
        f"{card}/owner-id": instance.account,
        f"{card}/security-group-ids": "\n".join(ids),
        f"{card}/security-groups": "\n".join(instance.security_groups),
        f"{card}/subnet-id": "subnet-0123456789abcdef0",
        f"{card}/subnet-ipv4-cidr-block": "10.77.0.0/24",
        f"{card}/vpc-id": "vpc-0123456789abcdef0",
    }
    return {**plain, **_tags(instance), **_credentials(instance)}


def _tags(instance: Instance) -> dict[str, str]:
    if instance.tags is None or not instance.all_tags():
        return {}
    return {f"tags/instance/{key}": value for key, value in instance.all_tags().items()}


def _credentials(instance: Instance) -> dict[str, str]:
    if not instance.role:
        return {}
    now = datetime.now(UTC)
    keys = {
        "Code": "Success",
        "LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "Type": "AWS-HMAC",
        "AccessKeyId": ACCESS_KEY,
        "SecretAccessKey": SECRET_KEY,
        "Token": SESSION_TOKEN,
        "Expiration": f"{now + timedelta(hours=6):%Y-%m-%dT%H:%M:%SZ}",
    }
    profile = f"arn:aws:iam::{instance.account}:instance-profile/{instance.role}"
    info = {"Code": "Success", "InstanceProfileArn": profile, "InstanceProfileId": "AIPALAB"}
    return {
        f"iam/security-credentials/{instance.role}": json.dumps(keys, indent=2),
        "iam/info": json.dumps(info, indent=2),
    }


def _document(instance: Instance, address: str) -> str:
    document = {
        "accountId": instance.account,
        "architecture": "x86_64",
        "availabilityZone": instance.az,
        "imageId": instance.ami,
        "instanceId": instance.id,
        "instanceType": instance.type,
        "pendingTime": "2026-01-01T00:00:00Z",
        "privateIp": address,
        "region": instance.region,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2)


def look_up(answers: dict[str, bytes], path: str) -> bytes | None:
    """Return a path's answer; a folder's is the list of its entries, with `/` after folders."""
    wanted = path.strip("/")
    if wanted in answers:
        return answers[wanted]
    prefix = f"{wanted}/" if wanted else ""
    # A tag's key may hold slashes, and its index lists whole keys.
    if wanted == "meta-data/tags/instance":
        names = [key.removeprefix(prefix) for key in answers if key.startswith(prefix)]
    else:
        below = [key.removeprefix(prefix) for key in answers if key.startswith(prefix)]
        names = [name.split("/")[0] + ("/" if "/" in name else "") for name in below]
    return "\n".join(dict.fromkeys(sorted(names))).encode() if names else None
