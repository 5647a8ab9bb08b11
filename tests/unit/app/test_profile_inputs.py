"""Bodies of requests: given, an example, made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from podium.app.profiling.inputs import found_or_made_up, given, made_up
from podium.resources.errors import InvalidInput
from podium.resources.manifest import FileEntry, Flavor, LockReference, Manifest, Signature, TensorSpec

MATRIX = Signature(
    inputs=[TensorSpec(name="x", datatype="FP64", shape=[-1, 3])],
    outputs=[TensorSpec(name="y", datatype="FP64", shape=[-1])],
)
COLUMNS = Signature(
    inputs=[
        TensorSpec(name="age", datatype="INT64", shape=[-1]),
        TensorSpec(name="plan", datatype="BYTES", shape=[-1, 1]),
        TensorSpec(name="note", datatype="BYTES", shape=[-1], optional=True),
    ],
    outputs=[],
)
WHOLE = Signature(inputs=[TensorSpec(name="x", datatype="FP32", shape=[2, 2])], outputs=[])


def tensors(body: str) -> dict[str, Any]:
    return {item["name"]: item for item in json.loads(body)["inputs"]}


def test_rows_are_taken_in_turn() -> None:
    inputs = given(MATRIX, [[1, 2, None], [4, 5, 6]], {})
    [tensor] = json.loads(inputs.body(3, start=1))["inputs"]
    assert tensor == {
        "name": "x",
        "shape": [3, 3],
        "datatype": "FP64",
        "data": [4, 5, 6, 1, 2, None, 4, 5, 6],
    }


def test_objects_and_lists_become_columns_of_their_datatypes() -> None:
    for rows in ([{"age": 31, "plan": "gold"}, {"plan": "iron", "age": 7}], [[31, "gold"], [7, "iron"]]):
        found = tensors(given(COLUMNS, rows, {}).body(2))
        assert found["age"] == {"name": "age", "shape": [2], "datatype": "INT64", "data": [31, 7]}
        assert found["plan"] == {
            "name": "plan",
            "shape": [2, 1],
            "datatype": "BYTES",
            "data": ["gold", "iron"],
        }


def test_columns_of_a_matrix_are_sent_as_they_are_named() -> None:
    found = tensors(given(MATRIX, [{"a": 1, "b": 2.5, "c": None}], {}).body())
    assert [found[name]["datatype"] for name in "abc"] == ["INT64", "FP64", "FP64"]


def test_without_a_signature_tensors_must_be_named() -> None:
    assert tensors(given(None, None, {"x": [[1.0, 2.0]]}).body())["x"]["shape"] == [1, 2]
    with pytest.raises(InvalidInput, match="no signature: name the tensors"):
        given(None, [[1, 2]], {})


@pytest.mark.parametrize(
    ("signature", "rows", "inputs", "words"),
    [
        (MATRIX, [[1, 2, 3], [1, 2]], {}, r"inputs\.x\[1\]: expected 3 values"),
        (MATRIX, None, {"x": [[1, 2, 3]], "z": [[1]]}, r"inputs\.z: no such input; known: x"),
        (MATRIX, None, {"x": 3}, r"inputs\.x: expected a list of rows"),
        (COLUMNS, [[1]], {}, r"rows\[0\]: expected 2 values, got 1"),
        (COLUMNS, [{"age": 1, "plan": "a"}, {"age": 1}], {}, r"rows\[1\]: expected an object"),
        (COLUMNS, None, {"age": [1, 2], "plan": ["a"]}, "the same number of rows"),
        (None, None, {"x": [[1, "a"]]}, "not a mix"),
    ],
)
def test_what_is_wrong_is_named(signature: Any, rows: Any, inputs: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        given(signature, rows, inputs)


def test_made_up_values_fit_the_signature_and_never_change() -> None:
    inputs = made_up(COLUMNS)
    assert (inputs.source, inputs.by_row) == ("made up", True)
    assert inputs.body(4) == made_up(COLUMNS).body(4)
    found = tensors(inputs.body(4))
    assert set(found) == {"age", "plan"}
    assert found["plan"]["shape"] == [4, 1]
    assert len({tuple(tensors(inputs.body(1, start))["age"]["data"]) for start in range(20)}) > 1


def test_a_model_that_does_not_work_by_row_gets_whole_requests() -> None:
    inputs = made_up(WHOLE)
    assert not inputs.by_row
    assert tensors(inputs.body())["x"]["shape"] == [2, 2]
    asked = given(WHOLE, None, {"x": [[1, 2], [3, 4]]})
    assert tensors(asked.body())["x"] == {
        "name": "x",
        "shape": [2, 2],
        "datatype": "FP32",
        "data": [1, 2, 3, 4],
    }


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ({"dataframe_split": {"columns": ["age", "plan"], "data": [[3, "a"]]}}, [3]),
        ({"inputs": {"age": [4], "plan": ["b"]}}, [4]),
        ({"inputs": [{"age": 5, "plan": "c"}]}, [5]),
    ],
)
def test_the_example_of_an_mlflow_model_is_used(tmp_path: Path, example: Any, expected: list[int]) -> None:
    file = tmp_path / "serving_input_example.json"
    file.write_text(json.dumps(example))
    inputs = found_or_made_up(manifest(file), COLUMNS, tmp_path)
    assert inputs.source == "example"
    assert tensors(inputs.body())["age"]["data"] == expected


@pytest.mark.parametrize("text", ["{", "[]", '{"inputs": {"other": [1]}}', '{"dataframe_split": 3}'])
def test_an_example_that_cannot_be_read_is_passed_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "serving_input_example.json"
    file.write_text(text)
    assert found_or_made_up(manifest(file), COLUMNS, tmp_path).source == "made up"


def manifest(file: Path) -> Manifest:
    return Manifest(
        flavor=Flavor(name="mlflow"),
        files=[FileEntry(path=file.name, size=file.stat().st_size, sha256="0" * 64)],
        signature=COLUMNS, python="3.11", lock=LockReference(sha256="0" * 64),
    )  # fmt: skip
