"""The binary tensor data extension of a real replica."""

import json
import struct

import numpy as np
import pytest

from runtime.tests.replica import python_version, running, tensor
from runtime.tests.sources import ANYTHING


def binary_infer(replica, document, *raw, length=None):
    head = json.dumps(document).encode()
    said = str(len(head) if length is None else length)
    return replica.infer(head + b"".join(raw), {"inference-header-content-length": said})


def split_answer(answer):
    length = int(answer.headers["inference-header-content-length"])
    return json.loads(answer.body[:length]), answer.body[length:]


def described(name, datatype, shape, raw):
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}


ARRAYS = {
    "BOOL": np.array([[True], [False]]),
    **{
        f"{sign}INT{bits}": np.array([[1], [2]], f"{sign.lower()}int{bits}")
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
    **{f"FP{bits}": np.array([[1.5], [-2.25]], f"float{bits}") for bits in (16, 32, 64)},
}


@pytest.mark.parametrize("datatype", sorted(ARRAYS))
def test_every_datatype_goes_through_in_binary(anything, datatype):
    raw = ARRAYS[datatype].tobytes()
    document = {
        "id": "i",
        "inputs": [described("x", datatype, [2, 1], raw)],
        "parameters": {"binary_data_output": True},
    }
    answer = binary_infer(anything, document, raw)
    head, rest = split_answer(answer)
    assert (answer.status, head["id"], answer.headers["content-type"]) == (
        200,
        "i",
        "application/octet-stream",
    )
    assert head["outputs"] == [described("x", datatype, [2, 1], raw)]
    assert rest == raw


def test_texts_bytes_and_mixed_forms(typed):
    texts = b"\x01\0\0\0a\x02\0\0\0\xc3\xbc"
    document = {
        "inputs": [
            {"name": "n", "datatype": "INT64", "shape": [2], "data": [1, 3]},
            described("s", "BYTES", [2], texts),
        ],
        "outputs": [
            {"name": "half", "parameters": {"binary_data": True}},
            {"name": "twice"},
            {"name": "text", "parameters": {"binary_data": True}},
        ],
    }
    head, rest = split_answer(binary_infer(typed, document, texts))
    half = struct.pack("<2H", 0x3F00, 0x3FC0)
    assert head["outputs"] == [
        described("half", "BF16", [2], half),
        {"name": "twice", "datatype": "INT64", "shape": [2], "data": [2, 6]},
        described("text", "BYTES", [2], texts),
    ]
    assert rest == half + texts
    # An output's own word counts for more than the request's.
    document["parameters"] = {"binary_data_output": True}
    document["outputs"] = [{"name": "twice", "parameters": {"binary_data": False}}, {"name": "half"}]
    head, rest = split_answer(binary_infer(typed, document, texts))
    assert ([("data" in output) for output in head["outputs"]], rest) == ([True, False], half)


def test_a_large_tensor_in_many_pieces(anything):
    array = np.random.default_rng(7).normal(size=(250, 1000))
    document = {
        "inputs": [described("x", "FP64", [250, 1000], array.tobytes())],
        "parameters": {"binary_data_output": True},
    }
    _, rest = split_answer(binary_infer(anything, document, array.tobytes()))
    assert rest == array.tobytes()


@pytest.mark.parametrize(
    ("change", "raw", "length", "field"),
    [
        ({}, b"\0" * 7, None, "inputs[0].parameters.binary_data_size"),
        ({}, b"\0" * 9, None, ""),
        ({"parameters": {"binary_data_size": 4}}, b"\0" * 4, None, "inputs[0].parameters.binary_data_size"),
        ({"parameters": {"binary_data_size": -8}}, b"\0" * 8, None, "inputs[0].parameters.binary_data_size"),
        (
            {"parameters": {"binary_data_size": True}},
            b"\0" * 8,
            None,
            "inputs[0].parameters.binary_data_size",
        ),
        (
            {"parameters": {"binary_data_size": 2**70}},
            b"\0" * 8,
            None,
            "inputs[0].parameters.binary_data_size",
        ),
        ({"data": [1]}, b"\0" * 8, None, "inputs[0].data"),
        ({"shape": [2**31 - 1] * 16}, b"\0" * 8, None, "inputs[0].shape"),
        ({"datatype": "BYTES"}, b"\xff" * 8, None, "inputs[0].parameters.binary_data_size"),
        ({"datatype": "BOOL", "shape": [8]}, b"\2" * 8, None, "inputs[0].parameters.binary_data_size"),
        ({}, b"\0" * 8, 10_000, "inference-header-content-length"),
        ({}, b"\0" * 8, 5, ""),
        (
            {"parameters": {"shared_memory_region": "r"}},
            b"",
            None,
            "inputs[0].parameters.shared_memory_region",
        ),
        ({"parameters": {"x": [1]}}, b"\0" * 8, None, "inputs[0].parameters"),
    ],
)
def test_binary_requests_that_do_not_fit_are_400(anything, change, raw, length, field):
    one = {"name": "x", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}} | change
    answer = binary_infer(anything, {"inputs": [one]}, raw, length=length)
    assert (answer.status, answer.json()["field"]) == (400, field)


def test_binary_sizes_without_the_header_and_flags_that_are_none(anything):
    one = described("x", "FP64", [1], b"\0" * 8)
    assert "inference-header-content-length" in anything.infer({"inputs": [one]}).json()["error"]
    good = {"inputs": [tensor(np.ones(1), "x")]}
    wrong = anything.infer(good | {"parameters": {"binary_data_output": 1}})
    assert (wrong.status, wrong.json()["field"]) == (400, "parameters.binary_data_output")
    outputs = [
        {"name": "y", "parameters": {"binary_data": True}},
        {"name": "x", "parameters": {"binary_data": "yes"}},
    ]
    wrong = anything.infer(good | {"outputs": outputs})
    assert (wrong.status, wrong.json()["field"]) == (400, "outputs[1].parameters.binary_data")
    wrong = anything.infer(good | {"outputs": [{"name": "x", "parameters": {"classification": 3}}]})
    assert (wrong.status, wrong.json()["field"]) == (400, "outputs[0].parameters.classification")


def test_a_tensor_over_the_limit_of_elements(tmp_path):
    with running(python_version(tmp_path, ANYTHING, maxTensorElements=10).write()) as replica:
        assert replica.infer({"inputs": [tensor(np.ones(10), "x")]}).status == 200
        refused = replica.infer({"inputs": [tensor(np.ones(11), "x")]})
        assert (refused.status, refused.json()["field"]) == (400, "inputs[0].shape")
        # Rows without columns are rows, and the shape is looked at before what follows it.
        for shape in ([11, 0], [0] + [2**31 - 1] * 3, [2**31 - 1] * 3 + [0]):
            for body in (
                described("x", "FP64", shape, b""),
                {"name": "x", "datatype": "FP64", "shape": shape, "data": []},
            ):
                refused = binary_infer(replica, {"inputs": [body]})
                assert (refused.status, refused.json()["field"]) == (400, "inputs[0].shape")
