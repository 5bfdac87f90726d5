"""Every failure that has a name, its exit status, and whether another try can help.

The exit statuses are the operator's interface: units restart by them, and scripts read them.
"""


class SoloError(Exception):
    """A failure with a name. Its text is one line: what is wrong, where, and what to do.

    exit_code: the process's exit status. retry: whether another try can help when no person changes
    anything.
    """

    exit_code = 1
    retry = True


class ConvergeError(SoloError):
    """An operation failed, or deploy.py could not be loaded."""


class DiskError(SoloError):
    """The disk is full or read-only."""


class SourceError(SoloError):
    """No usable source: no remote answered, and what is on disk may not be used."""

    exit_code = 10


class TrustError(SoloError):
    """A signature, a host key or a tree that cannot be trusted."""

    exit_code = 11
    retry = False


class RoleError(SoloError):
    """The role or the stage is unknown, ambiguous, or not a name."""

    exit_code = 12
    retry = False


class DataError(SoloError):
    """Settings, role data, a lock file or a template is invalid."""

    exit_code = 13
    retry = False


class IdentityError(SourceError):
    """The metadata service or the EC2 API did not identify this machine.

    It shares exit status 10 with the other sources: it is one, and a later try may help.
    instance_id: set when that much was known. cure: what to do, when the last try has failed.
    """

    instance_id: str | None = None
    cure = ""


class LockedError(SoloError):
    """Another run holds the lock."""

    exit_code = 20


class PausedError(SoloError):
    """An operator has closed the gate, and the run must not open it."""

    exit_code = 21
    retry = False


class DeadlineError(SoloError):
    """The time is over."""

    exit_code = 22


class JudgedError(SoloError):
    """Converged, but a check of the role failed."""

    exit_code = 30


class UsageError(SoloError):
    """The command line is wrong."""

    exit_code = 64
    retry = False
