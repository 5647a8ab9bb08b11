"""Podium's one tree of errors. It knows no HTTP; `api/problems.py` maps it to statuses, the CLI to exit codes.

PodiumError
├── InvalidInput          the caller's input is wrong: `issues` name each field          (never retry)
├── NotFound              no such object                                                 (never retry)
├── AlreadyExists         create of a name that is taken                                 (never retry)
├── Conflict              the object changed since `resourceVersion`                     (read again, then retry)
├── Refused               valid, but not allowed in the present state (serving, aliased) (never retry)
├── Unauthenticated       no or a bad token                                              (never retry)
├── Forbidden             a good token that may not do this                              (never retry)
├── Expired               a watch or page cursor that is too old                         (start again)
├── TooLarge              a body, file or list over its limit                            (never retry)
├── IntegrityError        stored bytes differ from their digest                          (never retry)
├── LeaseLost             another worker has taken the row over                          (drop the work)
└── Unavailable           something that we stand on did not answer                      (retry later)
"""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong: `field` is a path such as `spec.rollout.steps[0].weight`."""

    field: str
    message: str


class PodiumError(Exception):
    """Base of every error that Podium raises on purpose.

    `code` is stable and meant for programs, `message` for people, `next_step` says what to do about it.
    `retryable` is True where the same call can succeed later without any change by the caller.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, next_step: str | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.details = details or {}


class InvalidInput(PodiumError):
    """The input is wrong; `issues` holds one entry per field, at least one."""

    code = "invalid"

    def __init__(
        self, issues: list[Issue] | Issue, *, message: str | None = None, next_step: str | None = None
    ) -> None:
        self.issues = [issues] if isinstance(issues, Issue) else list(issues)
        summary = "; ".join(f"{issue.field}: {issue.message}" for issue in self.issues)
        super().__init__(message or summary, next_step=next_step)


class NotFound(PodiumError):
    """There is no such object."""

    code = "notFound"


class AlreadyExists(PodiumError):
    """The name is taken."""

    code = "alreadyExists"


class Conflict(PodiumError):
    """The object is not at the version that the caller named; `details["resourceVersion"]` is the current one."""

    code = "conflict"


class Refused(PodiumError):
    """The request is valid, but the present state does not allow it; the message says what stands in the way."""

    code = "refused"


class Unauthenticated(PodiumError):
    """No token, or one that is malformed, expired or revoked."""

    code = "unauthenticated"


class Forbidden(PodiumError):
    """The token is good, but its role or workspace does not allow this."""

    code = "forbidden"


class Expired(PodiumError):
    """A watch position or page cursor that the store no longer holds: list again and go on from there."""

    code = "expired"


class TooLarge(PodiumError):
    """Something is over a stated limit."""

    code = "tooLarge"


class IntegrityError(PodiumError):
    """Stored bytes differ from the digest that they are stored under."""

    code = "integrity"


class LeaseLost(PodiumError):
    """The row's lease went to another worker: whatever was done must not be written."""

    code = "leaseLost"


class Unavailable(PodiumError):
    """Something that Podium stands on (database, blob store, gateway, server) did not answer."""

    code = "unavailable"
    retryable = True
