"""What can go wrong, each with its exit status. `boot.py` alone catches.

The codes are the operator's interface: units restart by them, and scripts read them.
"""


class SoloError(Exception):
    """A failure that has a name.

    Its text is one line that says what is wrong and what to do; `exit_code` is the process's exit
    status and `retry` is whether trying again, with nothing changed by a person, can help.
    """

    exit_code = 1
    retry = True


class ConvergeError(SoloError):
    """An operation failed, or deploy.py could not be loaded."""


class SourceError(SoloError):
    """No usable source: no remote answered, and what is on disk may not be used."""

    exit_code = 10


class TrustError(SoloError):
    """A signature, a host key, or a tree that must not be believed."""

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
    """The metadata service or the EC2 API did not say who this machine is.

    It shares exit status 10 with the other sources: it is one, and waiting may help.
    """


class LockedError(SoloError):
    """Another run holds the lock."""

    exit_code = 20


class PausedError(SoloError):
    """An operator has closed the gate, and the run is not to open it."""

    exit_code = 21
    retry = False


class DeadlineError(SoloError):
    """Out of time."""

    exit_code = 22


class JudgedError(SoloError):
    """Converged, but a check of the role says no."""

    exit_code = 30


class UsageError(SoloError):
    """The command line is wrong."""

    exit_code = 64
    retry = False
