"""JSON logs on stderr, one object per line.

Set up once by `__main__`. Messages carry names, counts, durations and exception types, never input values:
`frames` gives where an exception came from without its message.
"""

import json
import logging
import sys
import time
import traceback
from types import TracebackType
from typing import Any

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """Writes time (UTC), level, logger and message, then whatever was passed as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        document.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info and record.exc_info[0] is not None:
            document["exception"] = record.exc_info[0].__name__
            document["frames"] = frames(record.exc_info[2])
        try:
            return orjson.dumps(document, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:
            # orjson writes no half of a surrogate pair, as in a file name that was no UTF-8; json escapes it.
            return json.dumps(document, default=str)


class RateLimit:
    """Allows a burst of lines per second and counts what it swallowed, so that a failing model cannot fill the disk."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._used = 0
        self._swallowed = 0

    def allow(self) -> int | None:
        """Return None when the line should be swallowed, else how many were swallowed before it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._used = second, 0
        if self._used >= self._per_second:
            self._swallowed += 1
            return None
        self._used += 1
        swallowed, self._swallowed = self._swallowed, 0
        return swallowed


def frames(trace: TracebackType | None) -> list[str]:
    """Return `file:line function` for the innermost frames of a traceback, outermost first."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-12:]]


def set_up_logging() -> None:
    """Send every logger and Python warning to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
