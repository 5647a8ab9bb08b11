"""Tensors between the Open Inference Protocol's JSON form and numpy.

Called by `messages`. Pure functions: JSON values in, arrays out, and back. Every refusal is an `InvalidInput`
that names the element (`inputs[0].data[3]`) and never quotes it.

Data is row-major, either flat or nested exactly as `shape` says. `null` means NaN in FP16, FP32 and FP64, and a
missing text (None) in BYTES; JSON can write neither NaN nor infinity, so both leave as `null`. BYTES are JSON
strings. BF16, which numpy does not have, is a float32 to the model. The raw form of tensors is in `raw`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podium_runtime.errors import InvalidInput

Array = NDArray[Any]

MAX_DIMENSIONS = 16
MAX_DIMENSION = 2**31 - 1
MAX_ELEMENTS = 2**31 - 1
"""Elements of any tensor; `maxTensorElements` of the configuration is what a replica allows."""


@dataclass(frozen=True)
class Datatype:
    """One wire datatype: its numpy dtype and the Python types that its JSON values may have."""

    name: str
    dtype: np.dtype[Any]
    json_types: frozenset[type]
    words: str
    limits: tuple[int, int] = (0, 0)
    """Lowest and highest value of an integer type; (0, 0) for the others."""
    size: int = 0
    """Bytes of one element in the raw form; 0 for BYTES, whose elements have lengths of their own."""


def _integer(name: str, dtype: str) -> Datatype:
    info = np.iinfo(dtype)
    words = f"a whole number from {info.min} to {info.max}"
    kind = np.dtype(dtype)
    return Datatype(name, kind, frozenset({int}), words, (int(info.min), int(info.max)), kind.itemsize)


def _floating(name: str, dtype: str, size: int) -> Datatype:
    types: frozenset[type] = frozenset({int, float, type(None)})
    return Datatype(name, np.dtype(dtype), types, "a number or null", size=size)


DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        Datatype("BOOL", np.dtype("bool"), frozenset({bool}), "true or false", size=1),
        *(_integer(f"UINT{bits}", f"uint{bits}") for bits in (8, 16, 32, 64)),
        *(_integer(f"INT{bits}", f"int{bits}") for bits in (8, 16, 32, 64)),
        *(_floating(f"FP{bits}", f"float{bits}", bits // 8) for bits in (16, 32, 64)),
        _floating("BF16", "float32", 2),
        Datatype("BYTES", np.dtype("object"), frozenset({str, type(None)}), "a string or null"),
    )
}

_BY_DTYPE = {datatype.dtype: datatype.name for datatype in DATATYPES.values() if datatype.name != "BF16"}
_NARROW = frozenset({"FP16", "FP32", "BF16"})
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a whole number",
    float: "a number with a fraction",
    type(None): "null",
}


def json_type(value: object) -> str:
    """Return what kind of JSON value this is, in words ("a string")."""
    return _JSON_NAMES.get(type(value), type(value).__name__)


def known_datatype(name: object, field: str) -> Datatype:
    """Return the datatype called `name`; raises InvalidInput listing the known ones."""
    found = DATATYPES.get(name) if isinstance(name, str) else None
    if found is None:
        got = "an unknown datatype" if isinstance(name, str) else json_type(name)
        raise InvalidInput(field, f"one of {', '.join(DATATYPES)}", got)
    return found


def known_shape(shape: object, field: str, most: int = MAX_ELEMENTS) -> tuple[int, ...]:
    """Return a shape of non-negative whole numbers with `most` elements at most; raises InvalidInput for all else."""
    if not isinstance(shape, list):
        raise InvalidInput(field, "a list of whole numbers", json_type(shape))
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidInput(field, f"at most {MAX_DIMENSIONS} dimensions", f"{len(shape)}")
    for index, size in enumerate(shape):
        if type(size) is not int:
            raise InvalidInput(f"{field}[{index}]", "a whole number", json_type(size))
        if not 0 <= size <= MAX_DIMENSION:
            raise InvalidInput(
                f"{field}[{index}]", f"a whole number from 0 to {MAX_DIMENSION}", "one outside that"
            )
    found = tuple(shape)
    check_size(found, most, field)
    return found


def check_size(shape: tuple[int, ...], most: int, field: str) -> None:
    """Raise InvalidInput for a shape of more than `most` elements, an axis without any counting as one.

    Counted so, because a shape of no elements but two thousand million rows is no less of a burden to a model.
    """
    if (count := math.prod(size or 1 for size in shape)) > most:
        got = f"{count} (axes of 0 counted as 1)" if 0 in shape else f"{count}"
        raise InvalidInput(field, f"at most {most} elements", got)


def decode_tensor(data: object, datatype: Datatype, shape: tuple[int, ...], field: str) -> Array:
    """Return the array of `shape` that the JSON value `data` describes.

    `field` is the path of the tensor (`inputs[0]`). Raises InvalidInput when the number or nesting of the
    elements differs from the shape, when an element has another type than the datatype's, or does not fit into
    it.
    """
    flat, nested = _flatten(data, shape, f"{field}.data")
    if not datatype.json_types.issuperset(map(type, flat)):
        _refuse_type(flat, datatype, shape, nested, field)
    lowest, highest = datatype.limits
    if highest and flat and (min(flat) < lowest or max(flat) > highest):
        index = next(i for i, value in enumerate(flat) if not lowest <= value <= highest)
        raise InvalidInput(_element(field, index, shape, nested), datatype.words, "one outside that")
    return _as_array(flat, datatype, shape, nested, field).reshape(shape)


def _as_array(
    flat: Sequence[Any], datatype: Datatype, shape: tuple[int, ...], nested: bool, field: str
) -> Array:
    if datatype.name == "BYTES":
        array = np.empty(len(flat), dtype=object)
        array[:] = flat
        return array
    if datatype.name not in _NARROW:
        return np.array(flat, dtype=datatype.dtype)
    wide = np.array(flat, dtype=np.float64)
    with np.errstate(over="ignore"):
        array = wide.astype(datatype.dtype)
    overflown = np.isinf(array)
    if overflown.any():
        index = int(overflown.argmax())
        raise InvalidInput(
            _element(field, index, shape, nested), f"a number within {datatype.name}", "a larger one"
        )
    return array


def _flatten(data: object, shape: tuple[int, ...], field: str) -> tuple[Sequence[Any], bool]:
    """Return the elements in row-major order and whether they came nested."""
    if type(data) is not list:
        raise InvalidInput(field, "a list of elements", json_type(data))
    count = math.prod(shape)
    if len(shape) < 2 or not data or type(data[0]) is not list:
        if len(data) != count:
            raise InvalidInput(field, f"{count} elements for shape {list(shape)}", f"{len(data)}")
        return data, False
    level: list[Any] = data
    if len(level) != shape[0]:
        raise InvalidInput(field, f"{shape[0]} rows for shape {list(shape)}", f"{len(level)}")
    for depth in range(1, len(shape)):
        size = shape[depth]
        for index, row in enumerate(level):
            if type(row) is not list:
                raise InvalidInput(
                    _indexed(field, index, shape[:depth]), f"a list of {size} elements", json_type(row)
                )
            if len(row) != size:
                raise InvalidInput(_indexed(field, index, shape[:depth]), f"{size} elements", f"{len(row)}")
        level = list(chain.from_iterable(level))
    return level, True


def _refuse_type(
    flat: Sequence[Any], datatype: Datatype, shape: tuple[int, ...], nested: bool, field: str
) -> None:
    for index, value in enumerate(flat):
        if type(value) not in datatype.json_types:
            expected = f"{datatype.words} ({datatype.name})"
            raise InvalidInput(_element(field, index, shape, nested), expected, json_type(value))


def _element(field: str, index: int, shape: tuple[int, ...], nested: bool) -> str:
    return _indexed(f"{field}.data", index, shape) if nested else f"{field}.data[{index}]"


def _indexed(field: str, index: int, shape: tuple[int, ...]) -> str:
    places: list[int] = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return field + "".join(f"[{place}]" for place in reversed(places))


def datatype_of(dtype: np.dtype[Any]) -> str | None:
    """Return the wire datatype that carries a numpy dtype, or None where the protocol has none.

    Text, bytes, dates and Python objects travel as BYTES.
    """
    name = _BY_DTYPE.get(dtype.newbyteorder("=") if dtype.kind in "iuf" else dtype)
    if name is None and dtype.kind in "OSUMT":
        return "BYTES"
    return name


def encode_tensor(array: Array, declared: str | None = None) -> tuple[str, Array | list[Any]]:
    """Return (datatype, flat data) of an array, the data in a form that orjson writes.

    `declared` may say BF16, which no dtype tells. Raises TypeError for a dtype that the protocol cannot carry
    (complex numbers, records).
    """
    dtype = array.dtype
    datatype = _BY_DTYPE.get(dtype) or datatype_of(dtype)
    if datatype is None:
        raise TypeError(f"the model returned dtype {dtype}, which no datatype of the protocol carries")
    if datatype == "BYTES":
        texts = np.datetime_as_string(array) if dtype.kind == "M" else array
        return datatype, [as_text(value) for value in texts.ravel().tolist()]
    if declared == "BF16" and dtype.kind == "f":
        datatype = "BF16"
    if array.size <= _FEW:
        # For a handful of values a list costs less than orjson's look at an array; half precision widens exactly.
        return datatype, array.ravel().tolist() if dtype != _SINGLE else array.ravel()
    # orjson writes contiguous arrays in the machine's byte order, and half precision only in its newer versions.
    wanted = _SINGLE if datatype in ("FP16", "BF16") else DATATYPES[datatype].dtype
    return datatype, np.ascontiguousarray(array, dtype=wanted).ravel()


_FEW = 16
_SINGLE = np.dtype("float32")


def as_text(value: object) -> str | None:
    """Return an element of a BYTES tensor as a text; None stays None, and so does a missing value (NaN)."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value)
