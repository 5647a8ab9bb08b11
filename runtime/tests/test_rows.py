"""Requests of different callers to graphs whose first axis may be rows or anything: a real replica, real calls."""

import threading

import numpy as np
import pytest
from onnx import TensorProto, helper

from runtime.tests.replica import Version, running, tensor

NEAR, FAR = np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[201.0, 201.0], [203.0, 203.0]])


def across():
    """y = x - mean of x over its first axis."""
    axis = helper.make_tensor("value", TensorProto.INT64, [1], [0])
    return [
        helper.make_node("Constant", [], ["axis"], value=axis),
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]


def by_row():
    """y = x * x."""
    return [helper.make_node("Mul", ["x", "x"], ["y"])]


def version(root, nodes, **settings):
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["first", 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    # Whoever may share a call waits for company here, so that two requests at a time surely do.
    settings = {"batch": {"maxSize": 4, "maxDelayMs": 60_000}, **settings}
    flavor = {"name": "onnx", "entry": "model.onnx", "options": {}}
    return Version(root, flavor, {"model.onnx": made.SerializeToString()}, settings=settings)


def ask_both(replica):
    """Ask about both at once; return the answers and how many calls of the model they took."""
    before = replica.metric("predict_seconds_count")
    found = {}

    def ask(name, rows):
        answer = replica.infer({"inputs": [tensor(rows, "x")]})
        found[name] = np.array(answer.json()["outputs"][0]["data"]).reshape(2, 2).tolist()

    asking = [threading.Thread(target=ask, args=one) for one in (("near", NEAR), ("far", FAR))]
    for one in asking:
        one.start()
    for one in asking:
        one.join(60)
    return found, replica.metric("predict_seconds_count") - before


def properties(replica):
    return replica.ask("GET", "/v2/models/churn").json()["properties"]


def test_a_graph_whose_rows_meet_answers_each_caller_as_if_alone(tmp_path):
    with running(version(tmp_path, across()).write()) as replica:
        alone = [[-1.0, -1.0], [1.0, 1.0]]
        assert ask_both(replica) == ({"near": alone, "far": alone}, 2)
        assert properties(replica)["rows_independent"] is False
        lines = [line for line in replica.log_lines() if "rows are independent" in line["message"]]
        assert [(line["independent"], line["reason"]) for line in lines] == [
            (False, "output y of a row depends on the rows beside it")
        ]


def test_a_graph_that_works_by_row_is_called_once_for_both(tmp_path):
    with running(version(tmp_path, by_row()).write()) as replica:
        assert ask_both(replica) == ({"near": (NEAR**2).tolist(), "far": (FAR**2).tolist()}, 1)
        assert properties(replica)["rows_independent"] is True


@pytest.mark.parametrize(
    "warmup", [{"requests": 0}, {"example": {"inputs": [tensor(NEAR, "x")]}}], ids=["none", "declared"]
)
def test_what_the_warm_up_says_counts(tmp_path, warmup):
    """A model that is not to be called before its first request is not asked; a declared example is."""
    with running(version(tmp_path, by_row(), warmup=warmup).write()) as replica:
        asked = "example" in warmup
        assert properties(replica)["rows_independent"] is asked
        assert ask_both(replica)[1] == (1 if asked else 2)
