"""Tensors between the protocol's raw form and numpy: little-endian elements, row-major, one after the other.

Called by `http.binary` (the binary tensor data extension) and by `grpc` (`raw_input_contents`). BYTES elements are
each preceded by their length as four little-endian bytes. BF16, which numpy does not have, becomes float32 (its
upper half is exactly a bfloat16) and leaves rounded to the nearest, ties to even.

BYTES that are UTF-8 throughout the tensor become texts, as they are in JSON; otherwise all its elements stay bytes.
A missing text (None) leaves as an empty element, because the raw form has no other way to say it.
"""

import math
import struct
import sys

import numpy as np

from podium_runtime.errors import InvalidInput
from podium_runtime.tensors import DATATYPES, Array, Datatype, as_text, datatype_of

Buffer = bytes | bytearray | memoryview
_LITTLE = sys.byteorder == "little"
_LENGTH = struct.Struct("<I")


def decode_raw(data: Buffer, datatype: Datatype, shape: tuple[int, ...], field: str) -> Array:
    """Return the array of `shape` in `data`, which must hold exactly its elements.

    The array shares memory with `data` where that is writable and aligned, and is a copy otherwise, so that a model
    may always write into it. `field` names where the bytes came from. Raises InvalidInput for too few or too many
    bytes, lengths that point outside, and booleans that are neither 0 nor 1.
    """
    view = memoryview(data).cast("B")
    count = math.prod(shape)
    if datatype.name == "BYTES":
        return _decode_bytes(view, count, field).reshape(shape)
    size = count * datatype.size
    if len(view) != size:
        raise InvalidInput(
            field, f"{size} bytes for shape {list(shape)} of {datatype.name}", f"{len(view)} bytes"
        )
    if datatype.name == "BF16":
        wide = np.frombuffer(view, dtype="<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32).reshape(shape)
    array = np.frombuffer(view, dtype=datatype.dtype if _LITTLE else datatype.dtype.newbyteorder("<"))
    if datatype.name == "BOOL" and count and array.view(np.uint8).max() > 1:
        raise InvalidInput(field, "bytes that are 0 or 1 (BOOL)", "another byte")
    if not (array.flags.writeable and array.flags.aligned and _LITTLE):
        array = array.astype(datatype.dtype)
    return array.reshape(shape)


def _decode_bytes(view: memoryview, count: int, field: str) -> Array:
    expected = f"{count} elements, each after its length in four bytes"
    if len(view) < 4 * count:
        raise InvalidInput(field, expected, f"{len(view)} bytes")
    elements: list[bytes] = []
    # As few steps as can be for an element, because there may be millions: slices of bytes cost half of what slices
    # of a view do, and a length that points outside the data is met when the next one is read there.
    content, at, end = bytes(view), 0, len(view)
    add, length_at = elements.append, _LENGTH.unpack_from
    try:
        for _ in range(count):
            (size,) = length_at(content, at)
            start = at + 4
            at = start + size
            add(content[start:at])
    except struct.error:
        inside = at <= end
        got = f"{len(elements)} elements" if inside else "a length that points outside the data"
        raise InvalidInput(field, expected, got) from None
    if at != end:
        got = f"{end - at} bytes more" if at < end else "a length that points outside the data"
        raise InvalidInput(field, expected, got)
    array = np.empty(count, dtype=object)
    try:
        array[:] = list(map(bytes.decode, elements))
    except UnicodeDecodeError:
        array[:] = elements
    return array


def encode_raw(array: Array, declared: str | None = None) -> tuple[str, Buffer]:
    """Return (datatype, bytes) of an array; the bytes share memory with it where they can.

    `declared` may say BF16, which no dtype tells. Raises TypeError for a dtype that the protocol cannot carry.
    """
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise TypeError(f"the model returned dtype {array.dtype}, which no datatype of the protocol carries")
    if datatype == "BYTES":
        texts = np.datetime_as_string(array) if array.dtype.kind == "M" else array
        return datatype, b"".join(_element(value) for value in texts.ravel().tolist())
    if declared == "BF16" and array.dtype.kind == "f":
        return "BF16", bfloat16_bits(array).astype("<u2").data.cast("B")
    dtype = DATATYPES[datatype].dtype
    flat = np.ascontiguousarray(array, dtype=dtype if _LITTLE else dtype.newbyteorder("<")).ravel()
    return datatype, flat.data.cast("B") if flat.size else b""


def _element(value: object) -> bytes:
    content = value if isinstance(value, bytes) else (as_text(value) or "").encode("utf-8", "surrogatepass")
    return len(content).to_bytes(4, "little") + content


def bfloat16_bits(array: Array) -> Array:
    """Return the flat bits (uint16) of floating-point numbers rounded to bfloat16: to the nearest, ties to even."""
    single = np.ascontiguousarray(array, dtype=np.float32).ravel()
    bits = single.view(np.uint32)
    # Half of the last kept place, and one less where that place is even: round half to even.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # A NaN may carry over into infinity: it keeps its sign and becomes quiet instead.
    return np.where(np.isnan(single), (bits >> 16) | 0x40, rounded).astype(np.uint16)
