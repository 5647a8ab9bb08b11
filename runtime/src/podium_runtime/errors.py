"""Everything that can go wrong in the model server, as one tree that knows no HTTP.

    RuntimeFault
    ├── StartupFault             the process cannot serve; `exit_code` says why
    │   ├── ConfigInvalid        2  the configuration file is unusable
    │   ├── DigestMismatch       3  stored bytes differ from the manifest
    │   └── ModelUnusable        4  the model does not load or refuses its declared example
    └── RequestError             one request gets no prediction; the process is fine
        ├── InvalidInput         the request is refused, by the schema or by the model (names the field)
        ├── UnknownPath          no such model, version or path
        ├── BodyTooLarge         the body is over the limit
        ├── TooSlow              the request did not arrive in time
        ├── QueueFull            too much is waiting already; trying again can help
        ├── NotReady             loading or draining; trying elsewhere can help
        ├── DeadlineExceeded     nobody waits for the answer any more
        ├── ClientGone           the caller hung up; nobody reads the answer
        └── ModelFailed          the model itself raised

Raised everywhere in the package; `http.statuses` maps request errors to statuses, `__main__` maps start-up faults to
exit codes. Messages never carry input values: they name fields, types and shapes only.
"""

import re
from typing import ClassVar

_PATHS = re.compile(r"(https?://\S+)|(?:\b[A-Za-z]:)?(?:[\\/][\w.@+~-]+){2,}[\\/]?")
_LONGEST_MODEL_MESSAGE = 500


class RuntimeFault(Exception):
    """Root of the tree."""


class StartupFault(RuntimeFault):
    """The process cannot serve. `exit_code` is what it ends with."""

    exit_code: ClassVar[int] = 1


class ConfigInvalid(StartupFault):
    """The configuration file is missing, unreadable or has a bad field."""

    exit_code = 2


class DigestMismatch(StartupFault):
    """The manifest or a file of the version is not what was pushed."""

    exit_code = 3


class ModelUnusable(StartupFault):
    """The model failed to load, or failed on the example that was declared for it."""

    exit_code = 4


class RequestError(RuntimeFault):
    """One request gets no prediction. `retryable` tells whether the same request may succeed later or elsewhere."""

    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def as_body(self) -> dict[str, object]:
        """Return the JSON object a client gets."""
        return {"error": self.message}


class InvalidInput(RequestError):
    """The request is refused: by the protocol, by the model's signature, or by the model itself.

    `field` is the path in the request (`inputs[0].data[3]`), `expected` and `got` say what was asked for and
    what came, as types, names and shapes, never as values. The message is made of the three.

    A class of the user's own raises it from `predict` or `predict_stream` for an input that it cannot take, and the
    caller gets 400 instead of the 500 of any other exception:

        from podium_runtime import InvalidInput

        raise InvalidInput("age", "a number from 0 to 150", "one outside that")

    Where several requests shared the call, the call is repeated in halves until the refused one stands alone.
    """

    def __init__(self, field: str, expected: str, got: str) -> None:
        super().__init__(
            f"{field}: expected {expected}, got {got}" if field else f"expected {expected}, got {got}"
        )
        self.field = field
        self.expected = expected
        self.got = got

    def as_body(self) -> dict[str, object]:
        return {"error": self.message, "field": self.field, "expected": self.expected, "got": self.got}


class UnknownPath(RequestError):
    """The name, version or path is not served here."""


class BodyTooLarge(RequestError):
    """The body is over the limit. Raised by whoever reads bodies."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than the limit of {limit} bytes")


class TooSlow(RequestError):
    """The caller took longer to send its request than a request may take."""

    retryable = True

    def __init__(self) -> None:
        super().__init__("the request did not arrive in time")


class QueueFull(RequestError):
    """As many requests wait as may wait. `retry_after` is in whole seconds."""

    retryable = True

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(RequestError):
    """The model is loading, or the process is draining."""

    retryable = True


class DeadlineExceeded(RequestError):
    """The request's time is over. Whether the model had begun on it is in the message."""


class ClientGone(RequestError):
    """The caller hung up before the answer; nothing can be sent."""


class ModelFailed(RequestError):
    """The model raised an exception of its own. Carries its type and message, with file paths taken out."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(describe_exception(cause))
        self.cause = cause


def describe_exception(cause: BaseException) -> str:
    """Return `Type: message` of a model's exception on at most 500 characters, without file paths."""
    try:
        text = str(cause)
    except BaseException:
        text = "(its message cannot be printed)"
    # Half of a surrogate pair, as in a file name that was no UTF-8, can be written in no answer.
    text = text.encode("utf-8", "backslashreplace").decode()
    text = _PATHS.sub(lambda found: found[1] or "<path>", text)
    if len(text) > _LONGEST_MODEL_MESSAGE:
        text = text[: _LONGEST_MODEL_MESSAGE - 1] + "…"
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
