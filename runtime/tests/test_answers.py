"""Answers that cannot be written as they are: every request gets one all the same, in every protocol."""

import contextlib
import json

import numpy as np
import pytest

from podium_runtime.grpc import PREFIX, schema, wire
from runtime.tests.replica import Connection, python_version, running

GRIM = """
import numpy as np

class Panic(BaseException):
    pass

class Grim:
    def __init__(self, error):
        self.error = error
    def __str__(self):
        raise self.error
    __repr__ = __str__

def odd(value):
    array = np.empty(1, dtype=object)
    array[0] = value
    return array

class Model:
    def predict(self, inputs):
        kind = inputs["kind"][0]
        if kind == "surrogate":
            raise ValueError("bad file \\udc80")
        if kind == "text":
            return {"y": odd("bad \\udc80")}
        if kind == "name":
            return {"bad \\udc80": np.ones(1)}
        if kind == "raises":
            return {"y": odd(Grim(ValueError("never /a/text/of/mine")))}
        if kind == "panics":
            return {"y": odd(Grim(Panic("never a text")))}
        return {"y": np.ones(1)}

    def predict_stream(self, inputs):
        yield {"y": np.ones(1)}
        yield self.predict(inputs)
        yield {"y": np.ones(1)}
"""
KINDS = ("surrogate", "text", "name", "raises", "panics")


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    version = python_version(tmp_path_factory.mktemp("grim"), GRIM, warmup={"requests": 0})
    with running(version.write()) as made:
        yield made
        # Whatever was not answered would be waited for until the end of the drain, 20 seconds.
        made.terminate()
        assert made.wait_end() == 0
        drained = [line for line in made.log_lines() if line["message"] == "drained"]
        assert drained[0]["seconds"] < 10


def v2(kind, **more):
    return {"inputs": [{"name": "kind", "datatype": "BYTES", "shape": [1], "data": [kind]}]} | more


def grpc(kind):
    tensor = {
        "name": "kind",
        "datatype": "BYTES",
        "shape": [1],
        "contents": {"bytes_contents": [kind.encode()]},
    }
    return wire.encode(schema.INFER_REQUEST, {"model_name": "churn", "inputs": [tensor]})


FORMS = {
    "v2": ("/v2/models/churn/infer", v2),
    "binary": ("/v2/models/churn/infer", lambda kind: v2(kind, parameters={"binary_data_output": True})),
    "v1": ("/v1/models/churn:predict", lambda kind: {"inputs": {"kind": [kind]}}),
    "mlflow": ("/invocations", lambda kind: {"inputs": {"kind": [kind]}}),
    "grpc": (f"{PREFIX}ModelInfer", grpc),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_request_is_answered_once(replica, form, kind):
    path, body = FORMS[form]
    headers = {"content-type": "application/json", "x-request-id": f"{form}-{kind}"}
    with contextlib.closing(Connection(replica.address, timeout=20)) as connection:
        answer = connection.ask("POST", path, body(kind), headers)
        # Texts and names that UTF-8 cannot carry may be refused or mended by a form; the model's exceptions are 500.
        allowed = (200, 500) if kind in ("text", "name") else (500,)
        assert answer.status in allowed, answer.body
        if answer.status == 500:
            said = answer.headers["x-grpc-message"] if form == "grpc" else answer.body.decode()
            assert said
            assert "/a/text" not in said
            logged = [line for line in replica.log_lines() if line.get("request_id") == f"{form}-{kind}"]
            assert len(logged) <= 1  # lines beyond ten a second are swallowed
        assert connection.ask("POST", path, body("fine"), headers).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_breaks_says_so(replica, kind):
    with contextlib.closing(Connection(replica.address, timeout=20)) as connection:
        connection.request("POST", "/v2/models/churn/generate_stream", json.dumps(v2(kind)).encode())
        response = connection.getresponse()
        lines = [line for line in response if line.strip()]
        assert response.status == 200
        events = [json.loads(line.removeprefix(b"data: ")) for line in lines]
        assert ["error" in event for event in events] == [False, True]
    replica.wait_for(lambda: replica.metric("streams") == 0)


def test_the_arrays_are_what_they_should_be(replica):
    answer = replica.infer(v2("fine"))
    assert answer.json()["outputs"][0]["data"] == np.ones(1).tolist()


UNSAID = """
class Model:
    signature = {"inputs": [{"name": "bad \\udc80", "datatype": "FP64", "shape": [-1]}],
                 "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}
    def predict(self, inputs):
        return inputs
"""


def test_a_refusal_that_cannot_be_written_is_an_answer_too(tmp_path):
    """What the model calls its input stands in the refusal of any other."""
    with running(python_version(tmp_path, UNSAID, warmup={"requests": 0}).write()) as made:
        for path, body in (FORMS[form] for form in FORMS):
            headers = {"content-type": "application/json"}
            answer = made.ask("POST", path, body("fine"), headers)
            assert answer.status in (400, 500), path
        assert made.ask("GET", "/v2/models/churn").status in (200, 500)
