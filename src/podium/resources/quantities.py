"""Durations and byte sizes as people write them (`30s`, `2Gi`), as pydantic types.

Called by the specs; a duration is kept as float seconds, a size as int bytes. Both are written back by the type's
serializer in a form that reads as the very same value: what is stored is text, and has to be read again.
"""

import re
from decimal import Decimal
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
_MAX_SECONDS = 365 * 86400
_MAX_BYTES = 2**50
_DURATION = r"([0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h|d))+"
_SIZE = r"[0-9]{1,16}(\.[0-9]{1,6})?(k|M|G|T|Ki|Mi|Gi|Ti)?"


def parse_duration(value: object) -> float:
    """Seconds from `250ms`, `30s`, `1m30s`, `24h`, `7d` or a plain number of seconds; at most 365 days.

    Rounded to whole microseconds, of which every one can be written (`format_duration`) and read again unchanged.
    """
    if isinstance(value, bool):
        raise ValueError("expected a duration such as 250ms, 30s, 5m or 24h")
    seconds: float
    if isinstance(value, (int, float)):
        seconds = value
    elif isinstance(value, str) and re.fullmatch(_DURATION, value):
        parts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", value)
        seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    else:
        raise ValueError("expected a duration such as 250ms, 30s, 5m or 24h")
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError("expected a duration between 0s and 365d")
    return round(float(seconds), 6)


def format_duration(seconds: float) -> str:
    """One exact way to write it, in the largest unit that it is a whole number of: 90 -> `90s`, 0.25 -> `250ms`,
    86400 -> `1d`. What is no whole number of seconds is in milliseconds, from a million seconds on in seconds."""
    if seconds == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        size = _DURATION_UNITS[unit]
        if seconds % size == 0:
            return f"{int(seconds / size)}{unit}"
    # More than nine digits before the point are no duration, and nobody could read them.
    number, unit = (seconds * 1000, "ms") if seconds < 1e6 else (seconds, "s")
    return f"{number:.{3 if unit == 'ms' else 6}f}".rstrip("0").rstrip(".") + unit


def parse_size(value: object) -> int:
    """Bytes from `512Mi`, `2Gi`, `500M` or a plain number; at most 1 PiB."""
    if isinstance(value, bool):
        raise ValueError("expected a size such as 512Mi or 2Gi")
    if isinstance(value, int):
        size = value
    elif isinstance(value, str) and re.fullmatch(_SIZE, value):
        number = value.rstrip("".join(_SIZE_UNITS))
        # Decimal: 1.001k are 1001 bytes, and no float knows that. A part of a byte is left out.
        size = int(Decimal(number) * _SIZE_UNITS[value.removeprefix(number)])
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
            "pattern": f"^{_DURATION}$",
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
            "pattern": f"^{_SIZE}$",
            "examples": ["512Mi", "2Gi"],
        }
    ),
]
