"""AWS inside the lab: moto's server, which knows the instances that the metadata service describes.

Reached by address, not by name: moto's S3 takes the first label of a host name for a bucket.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.network import SERVICES, Network
from tests.support import programs
from tests.support.instance import Instance

ADDRESS = SERVICES["aws.lab"]
PORT = 5000
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab"}


@dataclass
class Aws:
    """One moto server in the lab."""

    network: Network
    folder: Path
    _server: subprocess.Popen[bytes] | None = None
    _groups: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """Return the value of $AWS_ENDPOINT_URL, inside machines and out."""
        return f"http://{ADDRESS}:{PORT}"

    def start(self) -> None:
        """Start it; takes one to three seconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "moto.server", "-H", ADDRESS, "-p", str(PORT)]
        self._server = self.network.start(argv, self.folder / "moto.log")
        programs.wait_for("moto", self._serves, timeout=60)

    def _serves(self) -> bool:
        if self._server is None or self._server.poll() is not None:
            text = (self.folder / "moto.log").read_text()[-2000:]
            raise programs.LabError(f"moto has ended:\n{text}")
        return self.network.listens(ADDRESS, PORT)

    def stop(self) -> None:
        """Refuse connections until `start`; everything it knew is gone."""
        if self._server is not None:
            self._server.kill()
            self._server.wait(timeout=10)
        self._server = None
        self._groups.clear()

    def call(self, service: str, operation: str, *, region: str = "eu-west-1", **ask: Any) -> Any:
        """Call an API from here, for example `call("ec2", "describe_tags")`; botocore's errors."""
        import boto3
        from botocore.config import Config

        # The client's sockets are made during the call, in this thread.
        with self.network.entered():
            client = boto3.client(
                service,
                region_name=region,
                endpoint_url=self.endpoint,
                aws_access_key_id="lab",
                aws_secret_access_key="lab",  # noqa: S106 moto takes any
                config=Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 2}),
            )
            try:
                return getattr(client, operation)(**ask)
            finally:
                client.close()

    def launch(self, instance: Instance) -> Instance:
        """Launch it in moto; sets the ids that moto made."""
        groups = [self._group(name, instance.region) for name in instance.security_groups]
        instance.security_group_ids = groups
        tags = [{"Key": key, "Value": value} for key, value in (instance.tags or {}).items()]
        answer = self.call(
            "ec2",
            "run_instances",
            region=instance.region,
            ImageId=instance.ami,
            InstanceType=instance.type,
            MinCount=1,
            MaxCount=1,
            SecurityGroupIds=instance.security_group_ids,
            Placement={"AvailabilityZone": instance.az},
            **({"TagSpecifications": [{"ResourceType": "instance", "Tags": tags}]} if tags else {}),
        )
        instance.id = str(answer["Instances"][0]["InstanceId"])
        return instance

    def _group(self, name: str, region: str) -> str:
        if (region, name) not in self._groups:
            filters = [{"Name": "group-name", "Values": [name]}]
            found = self.call("ec2", "describe_security_groups", region=region, Filters=filters)
            known = [str(group["GroupId"]) for group in found["SecurityGroups"]]
            if not known:
                made = self.call(
                    "ec2", "create_security_group", region=region, GroupName=name, Description="lab"
                )
                known = [str(made["GroupId"])]
            self._groups[region, name] = known[0]
        return self._groups[region, name]
