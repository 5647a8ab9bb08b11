"""ONNX graphs with the datatypes and forms that scikit-learn's converter never makes."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from podium_runtime.errors import InvalidInput
from podium_runtime.flavors import load_model
from podium_runtime.signature import InputCheck


def value(name, kind, shape=("rows", 2)):
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(tmp_path, nodes, inputs, outputs):
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    return load_model("onnx", tmp_path, "model.onnx", {}, threads=1)


def test_no_graph_promises_that_its_rows_are_independent(tmp_path):
    """Both have the same signature: the first axis of the one is rows, that of the other could be anything."""
    kind = TensorProto.FLOAT
    axis = helper.make_node(
        "Constant", [], ["axis"], value=helper.make_tensor("a", TensorProto.INT64, [1], [0])
    )
    mean = helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1)
    (tmp_path / "across").mkdir()
    across = model(
        tmp_path / "across",
        [axis, mean, helper.make_node("Sub", ["x", "mean"], ["y"])],
        [value("x", kind)],
        [value("y", kind)],
    )
    by_row = model(
        tmp_path, [helper.make_node("Mul", ["x", "x"], ["y"])], [value("x", kind)], [value("y", kind)]
    )
    assert across.infer_signature() == by_row.infer_signature()
    x = np.array([[1, 1], [3, 3], [201, 201], [203, 203]], dtype=np.float32)
    alone, together = (across.predict({"x": rows}, None)["y"][:2].tolist() for rows in (x[:2], x))
    assert (alone, together) == ([[-1, -1], [1, 1]], [[-101, -101], [-99, -99]])
    assert (across.rows_independent, by_row.rows_independent) == (None, None)


def test_half_precision_stays_half(tmp_path):
    kind = TensorProto.FLOAT16
    half = model(
        tmp_path, [helper.make_node("Mul", ["x", "x"], ["y"])], [value("x", kind)], [value("y", kind)]
    )
    assert half.infer_signature().inputs[0].datatype == "FP16"
    x = np.array([[1.5, 300.0], [-2.0, np.nan]], dtype=np.float16)
    with np.errstate(over="ignore"):
        wanted = x * x
    got = half.predict({"x": x}, None)["y"]
    assert got.dtype == np.float16
    assert got.tobytes() == wanted.tobytes()


def test_bfloat16_goes_in_and_out_as_float32(tmp_path):
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "z"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.BFLOAT16),
    ]
    inputs = [value("x", TensorProto.BFLOAT16), value("z", TensorProto.FLOAT)]
    outputs = [value("y", TensorProto.BFLOAT16), value("product", TensorProto.FLOAT)]
    mixed = model(tmp_path, nodes, inputs, outputs)
    signature = mixed.infer_signature()
    assert [spec.datatype for spec in (*signature.inputs, *signature.outputs)] == [
        "BF16",
        "FP32",
        "BF16",
        "FP32",
    ]
    # 1.00390625 lies half way between two neighbours, and goes to the even one; 1.01171875 too, upwards.
    x = np.array([[1.5, 1.00390625], [1.01171875, np.nan]], dtype=np.float32)
    checked, rows = InputCheck(signature).check_inputs({"z": np.ones((2, 2), dtype=np.float32), "x": x})
    assert rows == 2
    outputs = mixed.predict(checked, None)
    wanted = np.array([[1.5, 1.0], [1.015625, np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(outputs["y"], wanted)
    np.testing.assert_array_equal(outputs["product"], wanted)
    assert outputs["y"].dtype == np.float32
    assert list(mixed.predict(checked, frozenset({"product"}))) == ["product"]


def test_whole_numbers_beyond_bfloat16_are_refused(tmp_path):
    kind = TensorProto.BFLOAT16
    same = model(
        tmp_path, [helper.make_node("Identity", ["x"], ["y"])], [value("x", kind)], [value("y", kind)]
    )
    check = InputCheck(same.infer_signature())
    exact, _ = check.check_inputs({"x": np.array([[256, -256]])})
    assert same.predict(exact, None)["y"].tolist() == [[256.0, -256.0]]
    with pytest.raises(InvalidInput) as error:
        check.check_inputs({"x": np.array([[1, 257]])})
    assert error.value.field == "inputs[0].data[1]"


def test_texts_go_in_and_out(tmp_path):
    kind = TensorProto.STRING
    same = model(
        tmp_path, [helper.make_node("Identity", ["x"], ["y"])], [value("x", kind)], [value("y", kind)]
    )
    assert same.infer_signature().inputs[0].datatype == "BYTES"
    words = np.array([["Bern", "Zürich 🚆"], ["", b"raw"]], dtype=object)
    assert same.predict({"x": words}, None)["y"].tolist() == [["Bern", "Zürich 🚆"], ["", "raw"]]
    with pytest.raises(InvalidInput) as error:
        same.predict({"x": np.array([["a", None]], dtype=object)}, None)
    assert (error.value.field, error.value.got) == ("inputs[0].data[1]", "null")


def test_several_inputs_of_several_ranks(tmp_path):
    nodes = [
        helper.make_node("Gather", ["table", "row"], ["y"]),
        helper.make_node("Not", ["flag"], ["other"]),
    ]
    inputs = [
        value("table", TensorProto.DOUBLE, ("n", "m")),
        value("row", TensorProto.INT64, ()),
        value("flag", TensorProto.BOOL, ("k",)),
    ]
    outputs = [value("y", TensorProto.DOUBLE, ("m",)), value("other", TensorProto.BOOL, ("k",))]
    several = model(tmp_path, nodes, inputs, outputs)
    assert [list(spec.shape) for spec in several.infer_signature().inputs] == [[-1, -1], [], [-1]]
    table = np.arange(6.0).reshape(3, 2)
    given = {"flag": np.array([True]), "row": np.array(2), "table": table}
    checked, rows = InputCheck(several.infer_signature()).check_inputs(given)
    assert (rows, list(checked)) == (0, ["table", "row", "flag"])
    outputs = several.predict(checked, None)
    assert (outputs["y"].tolist(), outputs["other"].tolist()) == ([4.0, 5.0], [False])


def test_threads_are_those_of_the_replica(tmp_path, monkeypatch):
    seen = []
    whole = onnxruntime.InferenceSession

    def session(path, settings, **more):
        seen.append((settings.intra_op_num_threads, settings.inter_op_num_threads))
        return whole(path, settings, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    kind = TensorProto.FLOAT
    model(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], [value("x", kind)], [value("y", kind)])
    assert seen == [(1, 1)]
