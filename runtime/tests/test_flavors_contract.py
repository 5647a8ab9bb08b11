"""What the check against a signature puts right, and what it refuses: numbers, order, categories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podium_runtime.errors import InvalidInput
from podium_runtime.signature import InputCheck, example_inputs, parse_signature


def check(datatype, array, **more):
    spec = {"name": "x", "datatype": datatype, "shape": [-1], **more}
    return InputCheck(parse_signature({"inputs": [spec]})).check_inputs({"x": np.asarray(array)})[0]["x"]


def refusal(datatype, array, **more):
    with pytest.raises(InvalidInput) as error:
        check(datatype, array, **more)
    return error.value


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", np.array([3, -(2**24), 2**24])),
        ("FP32", np.array([7], dtype=np.uint64)),
        ("FP64", np.array([2**53, -(2**53)])),
        ("FP16", np.array([2048, -2048])),
        ("INT64", np.array([3.0, -4.0])),
        ("INT64", np.array([-(2.0**63)])),
        ("UINT64", np.array([2.0**63])),
        ("INT8", np.array([127, -128])),
        ("INT32", np.array([5], dtype=np.float32)),
        ("UINT8", np.array([255])),
    ],
)
def test_numbers_that_survive_are_put_right(datatype, array):
    got = check(datatype, array)
    assert [int(value) for value in got.tolist()] == [int(value) for value in array.tolist()]


@pytest.mark.parametrize(
    ("datatype", "array", "place"),
    [
        ("FP32", np.array([0, 2**24 + 1]), 1),
        ("FP64", np.array([2**53 + 1]), 0),
        ("INT64", np.array([1.0, 2.5]), 1),
        ("INT64", np.array([np.nan]), 0),
        ("INT64", np.array([1.0, np.inf]), 1),
        ("INT64", np.array([2.0**63]), 0),
        ("UINT64", np.array([2.0**64]), 0),
        ("UINT64", np.array([-1]), 0),
        ("INT8", np.array([0, 128]), 1),
        ("INT32", np.array([2.0**31]), 0),
    ],
)
def test_numbers_that_would_change_are_named(datatype, array, place):
    error = refusal(datatype, array)
    assert error.field == f"inputs[0].data[{place}]"
    assert f"for x ({datatype})" in error.expected
    assert error.got == "another number"


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", np.array([0.5])),
        ("BOOL", np.array([1])),
        ("INT64", np.array(["1"], dtype=object)),
        ("BYTES", [1]),
    ],
)
def test_other_types_are_refused_as_before(datatype, array):
    assert refusal(datatype, array).field == "inputs[0].datatype"


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.sampled_from(["FP16", "FP32", "FP64", "INT16"])
)
def test_a_whole_number_never_changes(values, datatype):
    try:
        got = check(datatype, np.array(values, dtype=np.int64))
    except InvalidInput as error:
        place = int(error.field.removeprefix("inputs[0].data[").removesuffix("]"))
        # The first that does not fit, and it really is beyond what every neighbour survives.
        assert (
            abs(values[place]) > {"FP16": 2**11, "FP32": 2**24, "FP64": 2**53, "INT16": 2**15 - 1}[datatype]
        )
    else:
        assert [int(value) for value in got.tolist()] == values


def test_inputs_reach_the_model_in_the_order_of_the_signature():
    names = ["c", "a", "b"]
    signature = parse_signature({"inputs": [{"name": n, "datatype": "FP64", "shape": [-1]} for n in names]})
    fitted, _ = InputCheck(signature).check_inputs({name: np.ones(2) for name in "abc"})
    assert list(fitted) == names


CITY = ["Bern", "Basel"]


def test_categories():
    assert check("BYTES", np.array(["Basel", b"Bern"], dtype=object), categories=CITY).shape == (2,)
    error = refusal("BYTES", np.array(["Basel", "Paris"], dtype=object), categories=CITY)
    assert (error.field, error.got) == ("inputs[0].data[1]", "another value")
    assert "one of Bern, Basel for x" in error.expected
    assert refusal("BYTES", np.array([None], dtype=object), categories=CITY).got == "a missing value"
    assert check("BYTES", np.array([None], dtype=object), categories=[*CITY, None]).tolist() == [None]
    # After the number was put right: 2.0 is the category 2.
    assert check("INT64", np.array([2.0, 1.0]), categories=[1, 2]).tolist() == [2, 1]
    assert refusal("INT64", np.array([3]), categories=[1, 2]).field == "inputs[0].data[0]"


def test_categories_are_shown_and_the_first_is_the_example():
    document = {"name": "x", "datatype": "BYTES", "shape": [-1], "categories": CITY}
    signature = parse_signature({"inputs": [document]})
    assert signature.as_document()["inputs"] == [document]
    assert example_inputs(signature)["x"].tolist() == ["Bern"]


@pytest.mark.parametrize("categories", ["Bern", [], [[1]], {"a": 1}, 3])
def test_unreadable_categories_are_an_error(categories):
    document = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1], "categories": categories}]}
    with pytest.raises(ValueError, match=r"signature\.inputs\[0\]\.categories"):
        parse_signature(document)
