"""The tensor codec: what goes in exactly, what is refused with its place, and that nothing else can happen."""

import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium_runtime.errors import InvalidInput, RequestError
from podium_runtime.messages import InferResponse, decode_request, encode_response
from podium_runtime.tensors import DATATYPES, datatype_of, decode_tensor, known_datatype, known_shape


def decode(data, datatype="FP64", shape=(2, 2)):
    return decode_tensor(data, DATATYPES[datatype], shape, "inputs[0]")


def refusal(data, datatype="FP64", shape=(2, 2)):
    with pytest.raises(InvalidInput) as caught:
        decode(data, datatype, shape)
    return caught.value


@pytest.mark.parametrize("data", [[1, 2.5, 3, 4], [[1, 2.5], [3, 4]]])
def test_flat_and_nested_data_mean_the_same(data):
    array = decode(data)
    assert array.dtype == np.float64
    assert array.tolist() == [[1.0, 2.5], [3.0, 4.0]]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_null_is_nan_in_floating_point(datatype):
    array = decode([None, 1, 2, None], datatype)
    assert array.dtype == DATATYPES[datatype].dtype
    assert np.isnan(array).tolist() == [[True, False], [False, True]]


def test_null_is_a_missing_text_in_bytes():
    assert decode(["a", None, "", "ü"], "BYTES").tolist() == [["a", None], ["", "ü"]]


@pytest.mark.parametrize(
    ("data", "datatype", "field", "got"),
    [
        ([1, 2, 3, "4"], "FP64", "inputs[0].data[3]", "a string"),
        ([1, True, 3, 4], "FP64", "inputs[0].data[1]", "a boolean"),
        ([1, 2, 3, {}], "FP64", "inputs[0].data[3]", "an object"),
        ([[1, 2], [3, "4"]], "FP64", "inputs[0].data[1][1]", "a string"),
        ([[1, 2], [3]], "FP64", "inputs[0].data[1]", "1"),
        ([[1, 2], 3], "FP64", "inputs[0].data[1]", "a whole number"),
        ([1, 2, 3, [4]], "FP64", "inputs[0].data[3]", "a list"),
        ([[1, 2], [3, [4]]], "FP64", "inputs[0].data[1][1]", "a list"),
        ([[1, 2]], "FP64", "inputs[0].data", "1"),
        ([1, 2, 3], "FP64", "inputs[0].data", "3"),
        ([], "FP64", "inputs[0].data", "0"),
        ("1234", "FP64", "inputs[0].data", "a string"),
        (None, "FP64", "inputs[0].data", "null"),
        ([1, 2, 3.5, 4], "INT64", "inputs[0].data[2]", "a number with a fraction"),
        ([1, 2, None, 4], "INT64", "inputs[0].data[2]", "null"),
        ([1, 2, 128, 4], "INT8", "inputs[0].data[2]", "one outside that"),
        ([[1, 2], [-1, 4]], "UINT64", "inputs[0].data[1][0]", "one outside that"),
        ([1, 2, 2**63, 4], "INT64", "inputs[0].data[2]", "one outside that"),
        ([0, 1e39, 0, 0], "FP32", "inputs[0].data[1]", "a larger one"),
        ([0, 0, 0, 70000], "FP16", "inputs[0].data[3]", "a larger one"),
        ([True, False, 1, True], "BOOL", "inputs[0].data[2]", "a whole number"),
        (["a", "b", 3, "d"], "BYTES", "inputs[0].data[2]", "a whole number"),
    ],
)
def test_a_refusal_names_the_element_and_never_quotes_it(data, datatype, field, got):
    error = refusal(data, datatype)
    assert (error.field, error.got) == (field, got)
    assert error.expected


def test_extremes_of_integers_are_exact():
    for name, datatype in DATATYPES.items():
        lowest, highest = datatype.limits
        if highest:
            assert decode([lowest, highest], name, (2,)).tolist() == [lowest, highest]


def test_shapes_that_overflow_are_refused():
    assert known_shape([2**31 - 1, 1, 0], "shape") == (2**31 - 1, 1, 0)
    assert refusal([1], shape=(2**31 - 1,) * 16).field == "inputs[0].data"
    for shape in ([2**31 - 1, 2], [0, 2**31 - 1, 2**31 - 1], [2**31 - 1] * 16):
        with pytest.raises(InvalidInput, match="at most 2147483647 elements"):
            known_shape(shape, "inputs[0].shape")
    assert known_shape([5, 2], "shape", 10) == (5, 2)
    with pytest.raises(InvalidInput, match=r"expected at most 10 elements, got 11 \(axes of 0"):
        known_shape([11, 0], "inputs[0].shape", 10)
    for shape in ([2**31], [-1], [1] * 17, [True], [1.0], "2", None):
        with pytest.raises(InvalidInput):
            known_shape(shape, "inputs[0].shape")


def test_an_unknown_datatype_lists_the_known_ones():
    with pytest.raises(InvalidInput) as caught:
        known_datatype("FLOAT", "inputs[1].datatype")
    assert caught.value.field == "inputs[1].datatype"
    assert "FP64" in caught.value.expected


@pytest.mark.parametrize("name", sorted(set(DATATYPES) - {"BYTES", "BF16"}))
def test_every_number_comes_back_as_it_left(name):
    rng = np.random.default_rng(7)
    dtype = DATATYPES[name].dtype
    if dtype.kind == "f":
        array = rng.normal(size=(3, 4)).astype(dtype)
    else:
        array = rng.integers(0, 2 if name == "BOOL" else 100, size=(3, 4)).astype(dtype)
    for form in (array, np.asfortranarray(array), array[:, ::2], array.astype(dtype.newbyteorder(">"))):
        body = json.loads(encode_response(InferResponse("m", "1", {"y": form})))
        (output,) = body["outputs"]
        assert (output["datatype"], output["shape"]) == (name, list(form.shape))
        back = decode_tensor(output["data"], DATATYPES[name], form.shape, "y")
        assert back.tobytes() == form.astype(dtype).tobytes()


def test_text_and_objects_leave_as_bytes():
    outputs = {
        "str": np.array(["a", "ü"]),
        "bytes": np.array([b"a", b"\xff"]),
        "object": np.array(["a", None, 3, float("nan")], dtype=object),
        "date": np.array(["2026-01-02"], dtype="datetime64[D]"),
        "empty": np.array([], dtype=str),
        "scalar": np.array(1.5),
    }
    body = json.loads(encode_response(InferResponse("m", "1", outputs, "id-1")))
    assert body["id"] == "id-1"
    data = {output["name"]: (output["datatype"], output["data"]) for output in body["outputs"]}
    assert data["str"] == ("BYTES", ["a", "ü"])
    assert data["bytes"] == ("BYTES", ["a", "\\xff"])
    assert data["object"] == ("BYTES", ["a", None, "3", None])
    assert data["date"] == ("BYTES", ["2026-01-02"])
    assert data["empty"] == ("BYTES", [])
    assert data["scalar"] == ("FP64", [1.5])


def test_nan_and_infinity_leave_as_null():
    body = json.loads(encode_response(InferResponse("m", "1", {"y": np.array([math.nan, math.inf, 1.0])})))
    assert body["outputs"][0]["data"] == [None, None, 1.0]


def test_a_dtype_without_a_datatype_is_an_error():
    assert datatype_of(np.dtype("complex128")) is None
    with pytest.raises(TypeError, match="complex128"):
        encode_response(InferResponse("m", "1", {"y": np.array([1j])}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
DATA = (
    st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), max_size=8) | JSON
)
SHAPE = st.lists(st.integers(0, 4) | st.integers(-(2**70), 2**70), max_size=4) | JSON
TENSOR = st.fixed_dictionaries(
    {
        "name": st.text(max_size=4) | JSON,
        "datatype": st.sampled_from(sorted(DATATYPES)) | JSON,
        "shape": SHAPE,
        "data": DATA,
    },
    optional={"parameters": JSON},
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3) | JSON},
    optional={"id": JSON, "outputs": JSON, "parameters": JSON, "x": JSON},
)


def _is_result_or_refusal(body: bytes) -> None:
    try:
        request = decode_request(body)
    except RequestError as error:
        assert error.message
        orjson.dumps(error.as_body())
        return
    for array in request.inputs.values():
        assert array.dtype in {datatype.dtype for datatype in DATATYPES.values()}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_refusal(body):
    _is_result_or_refusal(body)


@given(REQUEST | JSON)
def test_any_json_is_a_request_or_a_refusal(document):
    _is_result_or_refusal(json.dumps(document).encode("utf-8", "surrogatepass"))


@given(
    st.sampled_from(sorted(DATATYPES)),
    st.lists(st.integers(0, 4), max_size=4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_fits_is_never_refused(name, shape, nested, random):
    datatype = DATATYPES[name]
    pool = {"b": [True, False], "O": ["", "x", None], "f": [None, 0, -1.5, 3], "i": [-1, 0, 7], "u": [0, 7]}
    flat = [random.choice(pool[datatype.dtype.kind]) for _ in range(math.prod(shape))]
    data = np.array([*flat, None], dtype=object)[:-1].reshape(shape).tolist() if nested and shape else flat
    array = decode_tensor(data, datatype, tuple(shape), "inputs[0]")
    assert array.shape == tuple(shape)
    assert [None if v != v else v for v in array.ravel().tolist()] == flat
