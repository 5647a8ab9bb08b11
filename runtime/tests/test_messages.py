"""Requests as a whole, and the check against a signature."""

import json

import numpy as np
import pytest

from podium_runtime.errors import InvalidInput, describe_exception
from podium_runtime.messages import decode_request
from podium_runtime.signature import InputCheck, Signature, TensorSpec, example_inputs, parse_signature

TENSOR = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}
SIGNATURE = parse_signature(
    {
        "inputs": [
            {"name": "x", "datatype": "FP64", "shape": [-1, 2]},
            {"name": "city", "datatype": "BYTES", "shape": [-1]},
            {"name": "age", "datatype": "INT64", "shape": [-1], "optional": True},
        ],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
    }
)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], ""),
        ({"inputs": [TENSOR], "input": 1}, ""),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": [1]}, "inputs[0]"),
        ({"inputs": [TENSOR, TENSOR]}, "inputs[1].name"),
        ({"inputs": [TENSOR], "id": 7}, "id"),
        ({"inputs": [TENSOR], "parameters": []}, "parameters"),
        ({"inputs": [TENSOR], "outputs": {}}, "outputs"),
        ({"inputs": [TENSOR], "outputs": ["y"]}, "outputs[0]"),
        ({"inputs": [TENSOR], "outputs": [{"name": ""}]}, "outputs[0].name"),
        ({"inputs": [TENSOR], "outputs": [{"name": "y", "x": 1}]}, "outputs[0]"),
        ({"inputs": [TENSOR | {"name": 1}]}, "inputs[0].name"),
        ({"inputs": [TENSOR | {"name": "n" * 513}]}, "inputs[0].name"),
        ({"inputs": [TENSOR | {"datatype": "FP8"}]}, "inputs[0].datatype"),
        ({"inputs": [TENSOR | {"extra": 1}]}, "inputs[0]"),
        ({"inputs": [TENSOR | {"parameters": 1}]}, "inputs[0].parameters"),
        ({"inputs": [{k: v for k, v in TENSOR.items() if k != "shape"}]}, "inputs[0].shape"),
        ({"inputs": [{k: v for k, v in TENSOR.items() if k != "data"}]}, "inputs[0].data"),
    ],
)
def test_a_refused_request_names_the_field(document, field):
    with pytest.raises(InvalidInput) as caught:
        decode_request(json.dumps(document).encode())
    assert caught.value.field == field


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 5000, b'{"inputs": [NaN]}', b"1e999"])
def test_what_is_not_json_is_refused(body):
    with pytest.raises(InvalidInput) as caught:
        decode_request(body)
    assert caught.value.field == ""


def test_a_request_is_read_whole():
    request = decode_request(
        json.dumps(
            {"id": "a", "inputs": [TENSOR], "outputs": [{"name": "y"}, {"name": "y"}], "parameters": {}}
        ).encode()
    )
    assert request.id == "a"
    assert request.outputs == ("y",)
    assert request.inputs["x"].tolist() == [[1.0, 2.0]]


def check(**inputs):
    return InputCheck(SIGNATURE).check_inputs(inputs)


def refused(**inputs):
    with pytest.raises(InvalidInput) as caught:
        check(**inputs)
    return caught.value


X = np.ones((3, 2))
CITY = np.array(["a", "b", None], dtype=object)


def test_inputs_that_fit_pass_with_their_rows():
    fitted, rows = check(x=X, city=CITY)
    assert rows == 3
    assert list(fitted) == ["x", "city"]


def test_safe_differences_are_put_right():
    fitted, _ = check(
        x=X.astype(np.int32), city=CITY.reshape(3, 1), age=np.array([[1], [2], [3]], dtype=np.int8)
    )
    assert (fitted["x"].dtype, fitted["age"].dtype) == (np.float64, np.int64)
    assert (fitted["city"].shape, fitted["age"].shape) == ((3,), (3,))


def test_refusals_say_field_expected_and_got():
    assert refused(x=X).field == "inputs"
    assert "city" in refused(x=X).expected
    assert refused(x=X, city=CITY, town=CITY).field == "inputs[2].name"
    assert refused(city=CITY, x=np.ones((3, 3))).field == "inputs[1].shape"
    assert refused(city=CITY, x=np.ones((3, 3))).got == "[3, 3]"
    assert refused(x=np.ones(6), city=CITY).field == "inputs[0].shape"
    assert refused(x=X, city=np.ones(3)).field == "inputs[1].datatype"
    assert refused(x=X, city=CITY, age=CITY).field == "inputs[2].datatype"
    assert refused(x=X, city=CITY, age=np.array([1.0, 2.5, 3.0])).field == "inputs[2].data[1]"
    assert refused(x=X, city=CITY[:2]).field == "inputs[1].shape"
    assert refused(x=np.ones((0, 2)), city=CITY[:0]).field == "inputs[0].shape"


def test_an_unknown_output_is_refused():
    checker = InputCheck(SIGNATURE)
    assert checker.check_outputs(("y",)) == {"y"}
    assert checker.check_outputs(()) is None
    with pytest.raises(InvalidInput) as caught:
        checker.check_outputs(("y", "z"))
    assert caught.value.field == "outputs[1].name"


def test_a_refusal_lists_twenty_names_at_most():
    outputs = tuple(TensorSpec(f"output {index}", "FP32", (-1,)) for index in range(200))
    with pytest.raises(InvalidInput, match="and 180 more") as caught:
        InputCheck(Signature(SIGNATURE.inputs, outputs)).check_outputs(("z",))
    assert len(caught.value.message) < 400


def test_a_shape_is_looked_at_before_its_data_is():
    tensor = {"name": "x", "datatype": "FP32", "shape": [11], "data": ["no number"] * 11}
    with pytest.raises(InvalidInput) as caught:
        decode_request(json.dumps({"inputs": [tensor]}).encode(), 10)
    assert caught.value.field == "inputs[0].shape"


def test_a_body_may_name_the_model_as_kserve_does():
    tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}
    request = decode_request(json.dumps({"model_name": "churn", "inputs": [tensor]}).encode())
    assert (request.model_name, request.model_version) == ("churn", None)
    with pytest.raises(InvalidInput) as caught:
        decode_request(json.dumps({"model_version": 3, "inputs": [tensor]}).encode())
    assert caught.value.field == "model_version"


def test_columns_stand_in_for_the_one_tensor():
    signature = parse_signature(
        {"inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}], "outputs": []}
    )
    checker = InputCheck(signature, ["a", "b"])
    assert checker.check_inputs({"input": X})[1] == 3
    fitted, rows = checker.check_inputs({"b": np.ones((3, 1)), "a": CITY})
    assert rows == 3
    assert fitted["b"].shape == (3,)
    for inputs, field in (
        ({"a": CITY}, "inputs"),
        ({"a": CITY, "c": CITY}, "inputs[1].name"),
        ({"a": CITY, "b": np.ones((3, 2))}, "inputs[1].shape"),
        ({"a": CITY, "input": X}, "inputs[0].name"),
    ):
        with pytest.raises(InvalidInput) as caught:
            checker.check_inputs(inputs)
        assert caught.value.field == field


def test_only_a_leading_minus_one_everywhere_promises_rows():
    assert SIGNATURE.works_by_row
    fixed = Signature(
        SIGNATURE.inputs, parse_signature({"inputs": [{"name": "s", "datatype": "FP64", "shape": []}]}).inputs
    )
    assert not fixed.works_by_row
    assert InputCheck(fixed).check_inputs({"x": X, "city": CITY})[1] == 0


def test_the_made_up_example_passes_its_own_check():
    example = example_inputs(SIGNATURE)
    assert InputCheck(SIGNATURE).check_inputs(example)[1] == 1
    assert "age" not in example


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"inputs": []},
        {"inputs": [{"name": "x", "datatype": "FP", "shape": [1]}]},
        {"inputs": [{"name": "", "datatype": "FP64", "shape": [1]}]},
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-2]}]},
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": "1"}]},
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1]}] * 2},
    ],
)
def test_an_unreadable_signature_is_an_error(document):
    with pytest.raises(ValueError, match="signature"):
        parse_signature(document)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no '/srv/models/x.bin' here", "ValueError: no '<path>' here"),
        ("C:\\models\\x.bin", "ValueError: <path>"),
        ("error:/home/x/y.", "ValueError: error:<path>"),
        ("see https://example.org/a/b/c for 1/2", "ValueError: see https://example.org/a/b/c for 1/2"),
        ("bad file \udc80", "ValueError: bad file \\udc80"),
        ("", "ValueError"),
        ("z" * 600, "ValueError: " + "z" * 499 + "…"),
    ],
)
def test_a_models_message_is_shown_without_paths(message, shown):
    assert describe_exception(ValueError(message)) == shown


def test_a_message_that_cannot_be_printed_is_no_second_error():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    assert describe_exception(Broken()) == "Broken: (its message cannot be printed)"
