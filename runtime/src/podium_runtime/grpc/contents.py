"""Typed tensor contents (`InferTensorContents`) to numpy and back. Called by `requests`; the raw form is `raw`'s.

Each datatype has one field that carries it; FP16 and BF16 have none and travel raw only. Every refusal names the
field and, where there is one, the element.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from podium_runtime.errors import InvalidInput
from podium_runtime.grpc import wire
from podium_runtime.raw import Buffer, decode_raw, encode_raw
from podium_runtime.tensors import Array, Datatype

TYPED = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which field carries a datatype; one that is not here has none."""


def decode_contents(
    contents: Mapping[str, Any], datatype: Datatype, shape: tuple[int, ...], field: str
) -> Array:
    """Return the array of `shape` in typed contents. `field` is the path of the tensor (`inputs[0]`).

    Raises InvalidInput for another field than the datatype's, too few or too many elements, or one that does not fit.
    """
    wanted = TYPED.get(datatype.name)
    if wanted is None:
        raise InvalidInput(f"{field}.contents", f"{datatype.name} in raw_input_contents", "typed contents")
    if others := sorted(contents.keys() - {wanted}):
        raise InvalidInput(f"{field}.contents", f"{wanted}, which carries {datatype.name}", others[0])
    place = f"{field}.contents.{wanted}"
    count = math.prod(shape)
    pieces = contents.get(wanted, [])
    if datatype.name == "BYTES":
        _counted(len(pieces), count, shape, place)
        return _texts(pieces).reshape(shape)
    data = wire.packed(pieces)
    if datatype.dtype.kind == "f":
        _counted(len(data) // datatype.size, count, shape, place)
        return decode_raw(data, datatype, shape, place)
    _counted(wire.count_integers(data), count, shape, place)
    values = np.empty(count, dtype=np.uint64)
    wire.integers(data, values, place)
    return _narrowed(values, datatype, place).reshape(shape)


def _counted(got: int, count: int, shape: tuple[int, ...], place: str) -> None:
    if got != count:
        raise InvalidInput(place, f"{count} elements for shape {list(shape)}", str(got))


def _narrowed(values: Array, datatype: Datatype, place: str) -> Array:
    if datatype.name == "BOOL":
        return values.astype(bool)
    signed = datatype.dtype.kind == "i"
    wide = values.view(np.int64) if signed else values
    lowest, highest = datatype.limits
    outside = wide > highest
    if signed:
        outside |= wide < lowest
    if outside.any():
        raise InvalidInput(f"{place}[{int(outside.argmax())}]", datatype.words, "one outside that")
    array: Array = wide.astype(datatype.dtype, copy=False)
    return array


def _texts(pieces: list[Buffer]) -> Array:
    """As in the raw form: texts where all elements are UTF-8, bytes otherwise."""
    array = np.empty(len(pieces), dtype=object)
    try:
        array[:] = [str(piece, "utf-8") for piece in pieces]
    except UnicodeDecodeError:
        array[:] = [bytes(piece) for piece in pieces]
    return array


def encode_contents(array: Array) -> tuple[str, dict[str, Any]]:
    """Return (datatype, the fields of typed contents) of an array whose datatype has a field.

    Raises TypeError for a dtype that the protocol cannot carry.
    """
    datatype, raw = encode_raw(array)
    name = TYPED[datatype]
    if datatype == "BYTES":
        return datatype, {name: _elements(raw)}
    return datatype, {name: raw if array.dtype.kind == "f" else wire.encode_integers(array)}


def _elements(raw: Buffer) -> list[Buffer]:
    """The elements of a BYTES tensor in raw form, where each stands after its length."""
    elements: list[Buffer] = []
    at, view = 0, memoryview(raw)
    while at < len(view):
        start = at + 4
        at = start + int.from_bytes(view[at:start], "little")
        elements.append(view[start:at])
    return elements
