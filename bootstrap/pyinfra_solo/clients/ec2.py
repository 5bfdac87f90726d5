"""The one door to the AWS API. boto3 is imported when the door is used: it costs 0.2 s and more."""

import os
from typing import Any

from pyinfra_solo.errors import IdentityError


class ApiUnavailableError(IdentityError):
    """The API did not answer, or answered with a fault: trying again can help."""


class ApiRefusedError(IdentityError):
    """The API answered that this machine may not ask."""


_REFUSED = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "OptInRequired")


def client(service: str, region: str) -> Any:
    """A boto3 client with bounds: 5 s to connect, 10 s to read, one retry (ours go around it).

    `AWS_ENDPOINT_URL` moves it (AWS SDKs and Tools Reference Guide, service-specific endpoints).
    """
    # botocore asks the metadata service for credentials through the proxy of the environment, too.
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
    """The instance's tags by DescribeTags (needs ec2:DescribeTags).

    Raises ApiUnavailableError or ApiRefusedError.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import (
        ResponseParserError,  # not a BotoCoreError: a portal that answers 200 and a page
    )

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
