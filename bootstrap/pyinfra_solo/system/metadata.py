"""Deny an account the instance metadata service: its credentials are the machine's. Standard library only.

docs.aws.amazon.com, "Use the Instance Metadata Service to access instance metadata".
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pyinfra_solo.system import processes

ADDRESSES = ("169.254.169.254", "fd00:ec2::254")


@contextmanager
def denied(uid: int) -> Iterator[str]:
    """Prohibit routes to the service for the sockets of the user `uid` inside the block (ip-rule(8)).

    Gives the reason when that cannot be done, else "". It needs ip(8) and CAP_NET_ADMIN. A killed process
    leaves the rules until the next block or boot.
    """
    _change("del", uid)  # those of a killed process: the kernel would keep both
    try:
        yield _change("add", uid)
    finally:
        _change("del", uid)


def _change(verb: str, uid: int) -> str:
    for address in ADDRESSES:
        family = "-6" if ":" in address else "-4"
        rule = ["to", address, "uidrange", f"{uid}-{uid}", "prohibit"]
        try:
            done = processes.run(["ip", family, "rule", verb, *rule], timeout=10, merge=True)
        except (OSError, TimeoutError) as error:
            return f"ip: {error}"
        # A machine without IPv6 reaches no address of it.
        if done.status and family == "-4" and verb == "add":
            return (done.stdout.decode(errors="replace").strip().splitlines() or ["ip gave no reason"])[-1]
    return ""
