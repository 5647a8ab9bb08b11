"""Durations and byte sizes as people write them (`30s`, `2Gi`), as pydantic types.

Called by the specs; a duration is kept as float seconds, a size as int bytes. Both are written back in the
form that was given by the type's serializer, so that `get` shows what `apply` said.
"""

import re
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_MAX_SECONDS = 365 * 86400.0
_MAX_BYTES = 2**50


def parse_duration(value: object) -> float:
    """Seconds from `250ms`, `30s`, `1m30s`, `24h`, `7d` or a plain number of seconds; at most 365 days."""
    if isinstance(value, bool):
        raise ValueError("expected a duration such as 250ms, 30s, 5m or 24h")
    if isinstance(value, (int, float)):
        seconds = float(value)
    elif isinstance(value, str) and re.fullmatch(r"(\d{1,9}(\.\d{1,6})?(ms|s|m|h|d))+", value):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
        seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    else:
        raise ValueError("expected a duration such as 250ms, 30s, 5m or 24h")
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError("expected a duration between 0s and 365d")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact way to write it: 90 -> `90s`, 0.25 -> `250ms`, 86400 -> `1d`."""
    if seconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        size = _DURATION_UNITS[unit]
        if seconds % size == 0 and (unit != "m" or seconds >= 60):
            return f"{int(seconds / size)}{unit}"
    return f"{round(seconds * 1000, 3):g}ms"


def parse_size(value: object) -> int:
    """Bytes from `512Mi`, `2Gi`, `500M` or a plain number; at most 1 PiB."""
    if isinstance(value, bool):
        raise ValueError("expected a size such as 512Mi or 2Gi")
    if isinstance(value, int):
        size = value
    elif isinstance(value, str) and (
        match := re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)(k|M|G|T|Ki|Mi|Gi|Ti)?", value)
    ):
        size = int(float(match.group(1)) * _SIZE_UNITS[match.group(2) or ""])
    else:
        raise ValueError("expected a size such as 512Mi or 2Gi")
    if not 0 <= size <= _MAX_BYTES:
        raise ValueError("expected a size between 0 and 1024Ti")
    return size


def format_size(size: int) -> str:
    """The shortest exact binary form: 2147483648 -> `2Gi`; `123` where no unit fits."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return str(size)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(\d{1,9}(\.\d{1,6})?(ms|s|m|h|d))+$",
            "examples": ["250ms", "30s", "5m"],
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\d{1,15}(\.\d{1,6})?(k|M|G|T|Ki|Mi|Gi|Ti)?$",
            "examples": ["512Mi", "2Gi"],
        }
    ),
]
