"""Errors and statuses of HTTP: the one file that maps the first to the second."""

from http import HTTPStatus

from podium_runtime import errors

REASONS: dict[int, bytes] = {status.value: status.phrase.encode() for status in HTTPStatus}


class Compressed(errors.InvalidInput):
    """The body is compressed, or encoded in another way, which is not read here."""

    def __init__(self) -> None:
        super().__init__("content-encoding", "a body that is not compressed", "a content-encoding")


class Malformed(errors.RequestError):
    """What came is no request of HTTP that is answered here. Carries its own status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


STATUSES: dict[type[errors.RequestError], int] = {
    errors.InvalidInput: 400,
    errors.UnknownPath: 404,
    errors.TooSlow: 408,
    errors.BodyTooLarge: 413,
    Compressed: 415,
    errors.QueueFull: 429,
    errors.ClientGone: 499,
    errors.ModelFailed: 500,
    errors.NotReady: 503,
    errors.DeadlineExceeded: 504,
}


def status_of(error: errors.RequestError) -> int:
    """Return the status that answers a request error."""
    if isinstance(error, Malformed):
        return error.status
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
