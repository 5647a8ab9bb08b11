"""Errors and statuses of HTTP: the one file that maps the first to the second."""

from http import HTTPStatus

from podium_runtime import errors

STATUSES: dict[type[errors.RequestError], int] = {
    errors.InvalidInput: 400,
    errors.UnknownPath: 404,
    errors.TooSlow: 408,
    errors.BodyTooLarge: 413,
    errors.QueueFull: 429,
    errors.ClientGone: 499,
    errors.ModelFailed: 500,
    errors.NotReady: 503,
    errors.DeadlineExceeded: 504,
}

REASONS: dict[int, bytes] = {status.value: status.phrase.encode() for status in HTTPStatus}


class Malformed(errors.RequestError):
    """What came is no request of HTTP that is answered here. Carries its own status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_of(error: errors.RequestError) -> int:
    """Return the status that answers a request error."""
    return error.status if isinstance(error, Malformed) else STATUSES[type(error)]
