"""Ask the EC2 API. boto3 is imported only then: it takes 0.2 s and more."""

import os
from typing import Any

from pyinfra_solo.errors import IdentityError


class ApiUnavailableError(IdentityError):
    """The API did not answer, or answered with a fault: a retry can help."""

    cure = (
        "So the tags of this machine are not known. Enable them in the metadata service, which needs no API "
        "(aws ec2 modify-instance-metadata-options --instance-id ID --instance-metadata-tags enabled), or let this "
        "machine reach the EC2 API, or set machine.tags = 'none' to choose the role by security groups alone."
    )


class ApiRefusedError(IdentityError):
    """The API denies this machine the call."""


_REFUSED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "OptInRequired")


def client(service: str, region: str) -> Any:
    """Make a boto3 client: 5 s to connect, 10 s to read, one retry inside the caller's own.

    `AWS_ENDPOINT_URL` overrides its endpoint (AWS SDKs and Tools Reference Guide, service-specific
    endpoints).
    """
    # For credentials botocore asks the metadata service, and would use the environment's proxy.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
        filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "169.254.169.254"))
    )
    os.environ.setdefault("AWS_EC2_METADATA_V1_DISABLED", "true")
    os.environ.setdefault("AWS_METADATA_SERVICE_TIMEOUT", "2")
    os.environ.setdefault("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "3")
    import boto3
    from botocore.config import Config

    bounds = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"})
    return boto3.session.Session().client(service, region_name=region, config=bounds)


def instance_tags(instance_id: str, region: str) -> dict[str, str]:
    """Read the instance's tags with DescribeTags, which needs the permission ec2:DescribeTags.

    Raises ApiUnavailableError or ApiRefusedError.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError  # a captive portal's page; no BotoCoreError

    try:
        pages = client("ec2", region).get_paginator("describe_tags")
        found = pages.paginate(Filters=[{"Name": "resource-id", "Values": [instance_id]}])
        return {tag["Key"]: tag["Value"] for page in found for tag in page["Tags"]}
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in _REFUSED:
            raise ApiRefusedError(
                f"The EC2 API refuses ec2:DescribeTags ({code}). Allow it, or enable instance tags in the metadata "
                "service, or set machine.tags = 'none' to choose the role by security groups alone."
            ) from error
        raise ApiUnavailableError(f"DescribeTags: {code}") from error
    except (BotoCoreError, ResponseParserError) as error:
        raise ApiUnavailableError(f"DescribeTags: {error}") from error
    except KeyError as error:
        raise ApiUnavailableError(
            f"DescribeTags: the answer is no list of tags: it has no {error}"
        ) from error
