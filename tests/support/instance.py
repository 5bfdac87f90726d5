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
    meta = {**_meta(instance, address, mac), **_credentials(instance)}
    tags = {f"tags/instance/{key}": value for key, value in instance.all_tags().items()}
    shown = {
        **{path: text for path, text in meta.items() if text},
        **(tags if instance.tags is not None else {}),
    }
    answers = {f"meta-data/{path}": text.encode() for path, text in shown.items()}
    answers["dynamic/instance-identity/document"] = _document(instance, address).encode()
    data = instance.user_data
    return {**answers, **({"user-data": data if isinstance(data, bytes) else data.encode()} if data else {})}


def _meta(instance: Instance, address: str, mac: str) -> dict[str, str]:
    """An empty text is not served."""
    host_name = f"ip-{address.replace('.', '-')}.{instance.region}.compute.internal"
    names = instance.security_groups
    ids = instance.security_group_ids or [f"sg-0{zlib.crc32(name.encode()):016x}" for name in names]
    card = {
        "device-number": "0", "interface-id": "eni-0123456789abcdef0", "local-ipv4s": address, "mac": mac,
        "owner-id": instance.account, "security-group-ids": "\n".join(ids), "security-groups": "\n".join(names),
        "subnet-id": "subnet-0123456789abcdef0", "subnet-ipv4-cidr-block": "10.77.0.0/24",
        "vpc-id": "vpc-0123456789abcdef0",
    }  # fmt: skip
    return {
        "ami-id": instance.ami, "ami-launch-index": "0", "hostname": host_name, "instance-action": "none",
        "instance-id": instance.id, "instance-life-cycle": "on-demand", "instance-type": instance.type,
        "local-hostname": host_name, "local-ipv4": address, "mac": mac, "placement/availability-zone": instance.az,
        "placement/region": instance.region, "reservation-id": "r-0123456789abcdef0",
        "security-groups": "\n".join(names), "services/domain": "amazonaws.com", "services/partition": "aws",
        "autoscaling/target-lifecycle-state": instance.lifecycle_state if instance.asg else "",
        **{f"network/interfaces/macs/{mac}/{name}": value for name, value in card.items()},
    }  # fmt: skip


def _credentials(instance: Instance) -> dict[str, str]:
    if not instance.role:
        return {}
    now, form = datetime.now(UTC), "%Y-%m-%dT%H:%M:%SZ"
    keys = {
        "Code": "Success", "LastUpdated": f"{now:{form}}", "Type": "AWS-HMAC", "AccessKeyId": ACCESS_KEY,
        "SecretAccessKey": SECRET_KEY, "Token": SESSION_TOKEN, "Expiration": f"{now + timedelta(hours=6):{form}}",
    }  # fmt: skip
    profile = f"arn:aws:iam::{instance.account}:instance-profile/{instance.role}"
    info = {"Code": "Success", "InstanceProfileArn": profile, "InstanceProfileId": "AIPALAB"}
    name = f"iam/security-credentials/{instance.role}"
    return {name: json.dumps(keys, indent=2), "iam/info": json.dumps(info, indent=2)}


def _document(instance: Instance, address: str) -> str:
    document = {
        "accountId": instance.account, "architecture": "x86_64", "availabilityZone": instance.az,
        "imageId": instance.ami, "instanceId": instance.id, "instanceType": instance.type,
        "pendingTime": "2026-01-01T00:00:00Z", "privateIp": address, "region": instance.region, "version": "2017-09-30",
    }  # fmt: skip
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
