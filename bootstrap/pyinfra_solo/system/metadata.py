"""Deny an account the instance metadata service: its credentials are the machine's. Standard library only.

docs.aws.amazon.com, "Use the Instance Metadata Service to access instance metadata".
"""

from pyinfra_solo.system import processes

ADDRESSES = ("169.254.169.254", "fd00:ec2::254")


def deny(uid: int) -> str:
    """Prohibit routes to the service for the sockets of the user `uid`, until the next boot (ip-rule(8)).

    Returns the reason when that cannot be done, else "". It needs ip(8) and CAP_NET_ADMIN.
    """
    for address in ADDRESSES:
        family = "-6" if ":" in address else "-4"
        rule = ["to", address, "uidrange", f"{uid}-{uid}", "prohibit"]
        try:
            processes.run(["ip", family, "rule", "del", *rule], timeout=10)  # a second one would be added
            done = processes.run(["ip", family, "rule", "add", *rule], timeout=10, merge=True)
        except (OSError, TimeoutError) as error:
            return f"ip: {error}"
        # A machine without IPv6 reaches no address of it.
        if done.status and family == "-4":
            return (done.stdout.decode(errors="replace").strip().splitlines() or ["ip gave no reason"])[-1]
    return ""
