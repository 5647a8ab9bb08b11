"""The raw form of tensors: exact both ways, and every byte too many or too few is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium_runtime.errors import InvalidInput
from podium_runtime.raw import decode_raw, encode_raw
from podium_runtime.tensors import DATATYPES, encode_tensor


def decode(data, datatype, shape):
    return decode_raw(data, DATATYPES[datatype], shape, "inputs[0]")


def refused(data, datatype, shape):
    with pytest.raises(InvalidInput) as caught:
        decode(data, datatype, shape)
    assert caught.value.field == "inputs[0]"
    return caught.value


@pytest.mark.parametrize("name", sorted(set(DATATYPES) - {"BYTES", "BF16"}))
def test_every_number_comes_back_as_it_left(name):
    dtype = DATATYPES[name].dtype
    rng = np.random.default_rng(7)
    array = rng.integers(0, 2 if name == "BOOL" else 100, size=(3, 4)).astype(dtype)
    for form in (array, np.asfortranarray(array), array[:, ::2], array.astype(dtype.newbyteorder(">"))):
        datatype, data = encode_raw(form)
        assert datatype == name
        assert bytes(data) == np.ascontiguousarray(form, dtype.newbyteorder("<")).tobytes()
        assert decode(data, name, form.shape).tolist() == form.tolist()


def test_memory_is_shared_only_where_the_model_may_write():
    whole = bytearray(np.arange(5, dtype="<f8").tobytes())
    shared = decode(memoryview(whole)[8:], "FP64", (4,))
    shared[0] = 7
    assert np.frombuffer(whole, "<f8")[1] == 7
    for data in (bytes(whole)[8:], memoryview(bytearray(b"x") + whole)[9:]):
        copy = decode(data, "FP64", (4,))
        assert copy.flags.writeable
        assert copy.flags.aligned


def test_bfloat16_is_the_upper_half_of_float32():
    values = np.array([0.0, -0.0, 1.0, -2.5, 3.0e38, 1e-40, np.inf, -np.inf], dtype=np.float32)
    upper = struct.pack("<8H", *(int(bits) >> 16 for bits in values.view(np.uint32)))
    assert decode(upper, "BF16", (8,)).dtype == np.float32
    datatype, data = encode_raw(decode(upper, "BF16", (8,)), "BF16")
    assert (datatype, data) == ("BF16", upper)
    # Halfway goes to the even neighbour, anything beyond halfway up: 1 + 2**-8 lies halfway between 1 and 1 + 2**-7.
    halves = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], dtype=np.float32)
    _, data = encode_raw(halves, "BF16")
    assert decode(data, "BF16", (3,)).tolist() == [1.0, 1 + 2**-6, 1 + 2**-7]
    nan = np.array([0x7F800001, 0xFFFFFFFF], dtype=np.uint32).view(np.float32)
    _, data = encode_raw(nan, "BF16")
    assert np.isnan(decode(data, "BF16", (2,))).all()
    assert encode_tensor(halves, "BF16")[0] == "BF16"


def test_texts_and_bytes():
    datatype, data = encode_raw(np.array(["a", "ü", "", None], dtype=object))
    assert (datatype, data) == ("BYTES", b"\x01\0\0\0a\x02\0\0\0\xc3\xbc\0\0\0\0\0\0\0\0")
    assert decode(data, "BYTES", (2, 2)).tolist() == [["a", "ü"], ["", ""]]
    _, data = encode_raw(np.array([b"\xff\x00", b"a"]))
    assert decode(data, "BYTES", (2,)).tolist() == [
        b"\xff",
        b"a",
    ]  # numpy's own fixed-width bytes lose the zero
    _, data = encode_raw(np.array([b"\xff\x00", b"a"], dtype=object))
    assert decode(data, "BYTES", (2,)).tolist() == [b"\xff\x00", b"a"]


def test_a_byte_too_many_or_too_few_is_refused():
    assert refused(b"\0" * 7, "FP64", (1,)).got == "7 bytes"
    assert refused(b"\0" * 9, "FP64", (1,)).got == "9 bytes"
    assert refused(b"", "INT8", (2**31 - 1,) * 16)
    assert refused(b"\0\2", "BOOL", (2,)).got == "another byte"
    assert refused(b"\1\0\0\0", "BYTES", (1,)).got == "a length that points outside the data"
    assert refused(b"\0\0\0\0\0\0\0\0", "BYTES", (1,)).got == "4 bytes more"
    assert refused(b"\1\0\0\0a\0\0\0", "BYTES", (2,)).got == "1 elements"
    assert refused(b"\xff\xff\xff\xff", "BYTES", (2**31,)).got == "4 bytes"
    assert decode(b"", "FP32", (0, 3)).shape == (0, 3)
    assert encode_raw(np.zeros((0, 3), np.float32)) == ("FP32", b"")


def test_a_dtype_without_a_datatype_is_an_error():
    with pytest.raises(TypeError, match="complex128"):
        encode_raw(np.array([1j]))


@given(st.binary(max_size=40), st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(0, 4), max_size=3))
def test_any_bytes_are_a_tensor_or_a_refusal(data, name, shape):
    try:
        array = decode(data, name, tuple(shape))
    except InvalidInput:
        return
    assert array.shape == tuple(shape)
    assert array.dtype == DATATYPES[name].dtype
