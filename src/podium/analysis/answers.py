"""What a replica has written down about one answer, read without trusting it: model code shares its process.

Called by `control.comparisons` with lines of the files that `podium_runtime.recording` writes, and by `divergence`,
which compares what is read here. Calls nothing.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

VALUES = 64
"""Values of one output that are written down. Of a larger one: whole rows, evenly spaced, and of a row that is wider
than this as many evenly spaced places; which ones follows from the shape alone, so both sides chose the same."""
LINE_BYTES = 64 * 2**10
_OUTPUTS = 16
_NAME_CHARACTERS = 256
_TEXT_CHARACTERS = 128
_DIMENSIONS = 8
_LARGEST = 2**63

ValueKind = Literal["text", "boolean", "integer", "float"]
_KINDS: Mapping[str, ValueKind] = {"t": "text", "b": "boolean", "i": "integer", "f": "float"}
Value = str | bool | int | float | None
"""None: a missing text."""


@dataclass(frozen=True, slots=True)
class Output:
    """Some or all values of one output, row by row."""

    kind: ValueKind
    shape: tuple[int, ...]
    """Of the whole output."""
    values: tuple[Value, ...]

    @property
    def width(self) -> int:
        """How many of the values are of one row."""
        return max(1, min(VALUES, math.prod(self.shape[1:])))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one replica. `outputs` is empty where it was an error."""

    id: str
    copy: bool
    """It was made for a copy: nobody got it."""
    at: float
    """Seconds since 1970 by the replica's clock."""
    seconds: float
    status: int
    """As HTTP says it."""
    outputs: Mapping[str, Output]

    @property
    def answered(self) -> bool:
        """It was a prediction."""
        return self.status == 200


def read_answer(line: bytes) -> Answer | None:
    """The answer that a line tells of; None where it is no such line."""
    if len(line) > LINE_BYTES:
        return None
    try:
        document = json.loads(line)
        return _answer(document)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def _answer(document: dict[str, object]) -> Answer:
    id_, at, seconds, status = (document[name] for name in ("id", "at", "s", "status"))
    if not isinstance(id_, str) or not 1 <= len(id_) <= 128 or not id_.isprintable():
        raise ValueError("id")
    outputs = document.get("out", {})
    if not isinstance(outputs, dict) or len(outputs) > _OUTPUTS:
        raise ValueError("out")
    if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
        raise ValueError("status")
    return Answer(
        id=id_,
        copy=document.get("copy") is True,
        # The largest that a calendar knows.
        at=_number(at, 253_402_300_799.0),
        seconds=_number(seconds, 1e6),
        status=status,
        outputs={_name(name): _output(item) for name, item in outputs.items()},
    )


def _name(name: str) -> str:
    if len(name) > _NAME_CHARACTERS or "\x00" in name:
        raise ValueError("name")
    name.encode()
    return name


def _number(value: object, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError("number")
    return float(value)


def _output(item: object) -> Output:
    if not isinstance(item, list) or len(item) != 3:
        raise ValueError("output")
    letter, shape, values = item
    if not isinstance(shape, list) or not isinstance(values, list) or len(values) > VALUES:
        raise ValueError("output")
    if len(shape) > _DIMENSIONS or any(type(size) is not int or not 0 <= size < _LARGEST for size in shape):
        raise ValueError("shape")
    kind = _KINDS[letter]
    output = Output(kind, tuple(shape), tuple(_value(kind, value) for value in values))
    if len(values) % output.width:
        raise ValueError("values")
    return output


def _value(kind: ValueKind, value: object) -> Value:
    match kind, value:
        case "float", None:
            # Anything that is not finite.
            return math.nan
        case "text", None:
            return None
        case "float", float() | int() if not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
        case "integer", int() if not isinstance(value, bool) and -_LARGEST <= value < 2 * _LARGEST:
            return value
        case "boolean", bool():
            return value
        case "text", str() if len(value) <= _TEXT_CHARACTERS:
            value.encode()
            return value
    raise ValueError("value")
