"""What a real replica refuses because of the model, or with the model's words, over HTTP and over gRPC."""

import json
import threading

import numpy as np
import pytest

from podium_runtime.grpc import schema, wire
from runtime.tests.contract import conforms, validator
from runtime.tests.replica import python_version, running, tensor

MOODY = """
import asyncio, os, time
import numpy as np
from podium_runtime import InvalidInput

class TooOld(InvalidInput):
    def __init__(self):
        super().__init__("age", "a number from 0 to 150", "one outside that")

class Panic(BaseException):
    pass

class Unprintable:
    def __str__(self):
        raise Panic("no words")

class Model:
    signature = {"inputs": [{"name": "age", "datatype": "FP64", "shape": [-1]}],
                 "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}
    def predict(self, inputs):
        age = inputs["age"]
        while (age == 7).any() and not os.path.exists(GATE):
            time.sleep(0.002)
        if (age > 150).any(): raise TooOld()
        if (age == 1).any(): raise asyncio.CancelledError()
        if (age == 2).any(): raise Panic("a panic")
        if (age == 3).any(): raise ValueError("bad file \\udc80 in /srv/models/x")
        if (age == 4).any(): return {"y": np.array([Unprintable() for _ in age], dtype=object)}
        return {"y": age * 2}
    def predict_stream(self, inputs):
        for value in inputs["age"]:
            if value > 150: raise TooOld()
            if value == 4: yield {"y": np.array([Unprintable()], dtype=object)}
            yield {"y": np.array([value])}
"""


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def moody(tmp_path_factory, gate):
    source = MOODY.replace("GATE", repr(str(gate)))
    version = python_version(tmp_path_factory.mktemp("moody"), source, maxTensorElements=1000)
    with running(version.write()) as made:
        yield made


def ask(replica, *ages, **more):
    return replica.infer({"inputs": [tensor(np.array(ages, dtype=float), "age")], **more})


def call(replica, shape, raw=None, datatype="FP64", **contents):
    told = {"name": "age", "datatype": datatype, "shape": shape, "contents": contents}
    values = {"model_name": "churn", "inputs": [told]}
    if raw is not None:
        values["raw_input_contents"] = [raw]
    return replica.ask(
        "POST", "/inference.GRPCInferenceService/ModelInfer", wire.encode(schema.INFER_REQUEST, values)
    )


def test_what_the_model_refuses_is_400_over_http(moody):
    answer = conforms(ask(moody, 200))
    assert answer.status == 400
    assert answer.json() == {
        "error": "age: expected a number from 0 to 150, got one outside that",
        "field": "age",
        "expected": "a number from 0 to 150",
        "got": "one outside that",
    }


def test_what_the_model_refuses_is_invalid_argument_over_grpc(moody):
    answer = call(moody, [1], np.array([200.0]).tobytes())
    assert (answer.status, answer.headers["x-grpc-status"]) == (400, "3")
    assert answer.headers["x-grpc-message"] == "age: expected a number from 0 to 150, got one outside that"


def test_a_refused_request_costs_its_neighbours_nothing(moody, gate):
    found = {}
    asking = [threading.Thread(target=lambda: ask(moody, 7.0))]
    asking[0].start()
    moody.wait_for(lambda: moody.metric("connections") >= 2 and moody.metric("queue_length") == 0)
    splits = moody.metric("batch_splits_total")
    for age in (20, 200, 30, 40):
        asking.append(threading.Thread(target=lambda age=age: found.update({age: ask(moody, age)})))
        asking[-1].start()
    moody.wait_for(lambda: moody.metric("queue_length") == 4)
    gate.touch()
    for one in asking:
        one.join(60)
    assert {age: answer.status for age, answer in found.items()} == {20: 200, 200: 400, 30: 200, 40: 200}
    assert moody.metric("batch_splits_total") > splits  # they did go together
    assert found[30].json()["outputs"][0]["data"] == [60.0]


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (1, "CancelledError"),
        (2, "Panic: a panic"),
        (3, "ValueError: bad file \\udc80 in <path>"),
        (4, "Panic"),
    ],
)
def test_whatever_a_model_raises_is_told_and_the_replica_goes_on(moody, age, words):
    answer = conforms(ask(moody, age))
    assert (answer.status, words in answer.json()["error"]) == (500, True), answer.body
    again = call(moody, [1], np.array([float(age)]).tobytes())
    assert (again.status, again.headers["x-grpc-status"]) == (500, "13")
    assert ask(moody, 5).json()["outputs"][0]["data"] == [10.0]


@pytest.mark.parametrize(("ages", "words"), [((5, 200), "age: expected"), ((5, 4), "Panic")])
def test_a_stream_that_breaks_says_why(moody, ages, words):
    body = {"inputs": [tensor(np.array(ages, dtype=float), "age")]}
    answer = moody.ask("POST", "/v2/models/churn/generate_stream", body)
    events = [json.loads(event.removeprefix("data: ")) for event in answer.body.decode().split("\n\n")[:-1]]
    assert events[0]["outputs"][0]["data"] == [5.0]
    assert words in events[1]["error"]
    assert len(events) == 2


BIG = 2**31 - 1


@pytest.mark.parametrize("shape", [[BIG, BIG, BIG, 0], [0, BIG, BIG, BIG], [0, BIG], [1001, 0]])
def test_huge_shapes_without_elements_are_refused(moody, shape):
    for datatype in ("FP64", "BYTES", "INT64"):
        told = {"name": "age", "datatype": datatype, "shape": shape}
        plain = conforms(moody.infer({"inputs": [told | {"data": []}]}))
        assert (plain.status, plain.json()["field"]) == (400, "inputs[0].shape")
        head = json.dumps({"inputs": [told | {"parameters": {"binary_data_size": 0}}]}).encode()
        binary = conforms(moody.infer(head, {"Inference-Header-Content-Length": str(len(head))}))
        assert (binary.status, binary.json()["field"]) == (400, "inputs[0].shape")
        for answer in (call(moody, shape, b"", datatype), call(moody, shape, None, datatype)):
            assert (answer.status, answer.headers["x-grpc-status"]) == (400, "3")
            assert "inputs[0].shape" in answer.headers["x-grpc-message"]


def test_a_body_as_kserves_client_sends_it(moody):
    described = validator({"$ref": "#/components/schemas/InferRequest"})
    body = {"id": "1", "model_name": "churn", "inputs": [tensor(np.array([5.0]), "age")]}
    assert described.is_valid(body)
    assert conforms(moody.infer(body)).json()["outputs"][0]["data"] == [10.0]
    assert conforms(moody.infer(body | {"model_version": "3"})).status == 200
    assert conforms(moody.infer(body | {"model_version": None})).status == 200
    for field, value in (("model_name", "credit"), ("model_version", "77"), ("model_name", 3)):
        refused = conforms(moody.infer(body | {field: value}))
        assert (refused.status, refused.json()["field"]) == (400, field)


def test_an_output_that_nobody_has_is_refused_without_a_signature(tmp_path):
    source = (
        "class Model:\n    def predict(self, inputs):\n        return {'a': inputs['x'], 'b': inputs['x']}\n"
    )
    with running(python_version(tmp_path, source).write()) as replica:
        body = {"inputs": [tensor(np.ones(1), "x")]}
        answer = conforms(replica.infer(body | {"outputs": [{"name": "a"}, {"name": "nope"}]}))
        assert (answer.status, answer.json()["field"]) == (400, "outputs[1].name")
        assert answer.json()["expected"] == "one of a, b"
        assert len(replica.infer(body | {"outputs": [{"name": "b"}]}).json()["outputs"]) == 1
