"""Tensors between the protocol's raw form and numpy: little-endian elements, row-major, one after the other.

Called by `http.binary` (the binary tensor data extension) and by `grpc` (`raw_input_contents`). BYTES elements are
each preceded by their length as four little-endian bytes. BF16, which numpy does not have, becomes float32 (its
upper half is exactly a bfloat16) and leaves rounded to the nearest, ties to even.

BYTES that are UTF-8 throughout the tensor become texts, as they are in JSON; otherwise all its elements stay bytes.
A missing text (None) leaves as an empty element, because the raw form has no other way to say it.
"""

import math
import sys

import numpy as np

from podium_runtime.errors import InvalidInput
from podium_runtime.tensors import DATATYPES, Array, Datatype, as_text, datatype_of

Buffer = bytes | bytearray | memoryview
_LITTLE = sys.byteorder == "little"


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
    at, end = 0, len(view)
    for _ in range(count):
        if at + 4 > end:
            raise InvalidInput(field, expected, f"{len(elements)} elements")
        start = at + 4
        at = start + int.from_bytes(view[at:start], "little")
        if at > end:
            raise InvalidInput(field, expected, "a length that points outside the data")
        elements.append(bytes(view[start:at]))
    if at != end:
        raise InvalidInput(field, expected, f"{end - at} bytes more")
    array = np.empty(count, dtype=object)
    try:
        array[:] = [element.decode() for element in elements]
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
        return "BF16", _bfloat16(np.ascontiguousarray(array, dtype=np.float32))
    dtype = DATATYPES[datatype].dtype
    flat = np.ascontiguousarray(array, dtype=dtype if _LITTLE else dtype.newbyteorder("<")).ravel()
    return datatype, flat.data.cast("B") if flat.size else b""


def _element(value: object) -> bytes:
    content = value if isinstance(value, bytes) else (as_text(value) or "").encode("utf-8", "surrogatepass")
    return len(content).to_bytes(4, "little") + content


def _bfloat16(array: Array) -> bytes:
    bits = array.ravel().view(np.uint32)
    # Half of the last kept place, and one less where that place is even: round half to even.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # A NaN may carry over into infinity: it keeps its sign and becomes quiet instead.
    rounded = np.where(np.isnan(array.ravel()), (bits >> 16) | 0x40, rounded)
    return rounded.astype("<u2").tobytes()
