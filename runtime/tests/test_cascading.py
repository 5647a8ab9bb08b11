"""A small model in front of a larger one: which answers bear the header that asks for the larger one."""

import json
import pickle

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from podium_runtime import cascading
from podium_runtime.grpc import PREFIX, schema, wire
from runtime.tests.replica import Version, python_version, running, tensor

RANDOM = np.random.default_rng(7)
ROWS = RANDOM.normal(size=(400, 3))
LABELS = (ROWS.sum(axis=1) + RANDOM.normal(size=400) > 0).astype(int)
SMALL = LogisticRegression().fit(ROWS, LABELS)
THRESHOLD = 0.8
SURE = SMALL.predict_proba(ROWS).max(axis=1)
STREAMING = """
import numpy as np
class Model:
    def predict(self, inputs):
        return {"y": inputs["x"], "predict_proba": np.full((1, 2), 0.5)}
    def predict_stream(self, inputs):
        for _ in range(2):
            yield {"y": inputs["x"], "predict_proba": np.full((1, 2), 0.5)}
"""


def asked(threshold=THRESHOLD, output="predict_proba", by="churn"):
    return {"x-podium-cascade": f"by={by};threshold={threshold!r};output={output}"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    flavor = {"name": "sklearn", "entry": "model.pkl", "options": {"format": "pickle"}}
    signature = {
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 3]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
        ],
    }
    root = tmp_path_factory.mktemp("small")
    version = Version(root, flavor, {"model.pkl": pickle.dumps(SMALL)}, signature=signature)
    with running(version.write()) as made:
        yield made


def says(answer):
    """The confidence in an answer that asks for the larger model; None in one that does not."""
    assert answer.status == 200, answer.body
    value = answer.headers.get("x-podium-escalate")
    return None if value is None else float(value)


def v2(rows, **more):
    return {"inputs": [tensor(rows, "x")], **more}


def test_each_row_is_judged_as_it_is_without_a_server(small):
    before = {said: small.metric("cascade_total", said=said) for said in ("sure", "unsure")}
    escalated = []
    for row, sure in zip(ROWS[:120], SURE[:120], strict=True):
        said = says(small.infer(v2(row[None]), asked()))
        assert said == pytest.approx(sure, rel=1e-5) if sure < THRESHOLD else said is None
        escalated.append(said is not None)
    assert escalated == (SURE[:120] < THRESHOLD).tolist()
    assert 10 < sum(escalated) < 110, "the data has to tell the two apart"
    assert small.metric("cascade_total", said="unsure") - before["unsure"] == sum(escalated)
    assert small.metric("cascade_total", said="sure") - before["sure"] == 120 - sum(escalated)


def test_the_least_sure_row_of_a_request_decides(small):
    surest = ROWS[np.argsort(SURE)[-5:]]
    doubtful = ROWS[np.argmin(SURE)][None]
    assert says(small.infer(v2(surest), asked())) is None
    assert says(small.infer(v2(np.vstack([surest, doubtful])), asked())) == pytest.approx(
        SURE.min(), rel=1e-5
    )


def test_what_was_computed_for_the_gateway_only_is_not_in_the_answer(small):
    doubtful = ROWS[np.argmin(SURE)][None]
    answer = small.infer(v2(doubtful, outputs=[{"name": "predict"}]), asked())
    assert says(answer) is not None
    assert [output["name"] for output in answer.json()["outputs"]] == ["predict"]
    assert answer.json() == small.infer(v2(doubtful, outputs=[{"name": "predict"}])).json()


def test_all_protocols_say_it(small):
    for row, unsure in ((ROWS[np.argmin(SURE)], True), (ROWS[np.argmax(SURE)], False)):
        raw = np.asarray(row[None], "<f8").tobytes()
        described = {
            "name": "x",
            "datatype": "FP64",
            "shape": [1, 3],
            "parameters": {"binary_data_size": len(raw)},
        }
        head = json.dumps({"inputs": [described]}).encode()
        binary = {"inference-header-content-length": str(len(head))}
        assert (says(small.infer(head + raw, asked() | binary)) is not None) is unsure
        body = {"inputs": [row.tolist()]}
        json_body = {"content-type": "application/json"}
        for path in ("/invocations", "/v1/models/churn:predict"):
            plain = small.ask("POST", path, body, json_body)
            answer = small.ask("POST", path, body, json_body | asked())
            assert (says(answer) is not None) is unsure
            assert answer.json() == plain.json()
        message = {
            "model_name": "churn", "inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 3]}],
            "raw_input_contents": [raw],
        }  # fmt: skip
        call = wire.encode(schema.INFER_REQUEST, message)
        assert (says(small.ask("POST", f"{PREFIX}ModelInfer", call, asked())) is not None) is unsure


def test_nobody_is_asked_by_mistake(small):
    doubtful = v2(ROWS[np.argmin(SURE)][None])
    assert says(small.infer(doubtful)) is None
    assert says(small.infer(doubtful, asked(by="large"))) is None
    assert says(small.infer(doubtful, asked(by="other,churn"))) is not None
    for broken in ("", "by=churn", "by=churn;threshold=1-e;output=predict_proba", "by=churn;threshold=2"):
        assert says(small.infer(doubtful, {"x-podium-cascade": broken})) is None


def test_an_output_that_is_not_there_is_counted(small):
    before = small.metric("cascade_total", said="unknown")
    assert says(small.infer(v2(ROWS[:1]), asked(output="certainty"))) is None
    assert small.metric("cascade_total", said="unknown") == before + 1


def test_what_fails_does_not_escalate(small):
    answer = small.infer({"inputs": [tensor(np.ones((1, 9)), "x")]}, asked())
    assert answer.status == 400
    assert "x-podium-escalate" not in answer.headers


def test_a_stream_never_escalates(tmp_path):
    with running(python_version(tmp_path, STREAMING).write()) as replica:
        body = {"inputs": [tensor(np.ones((1, 1)), "x")]}
        assert says(replica.infer(body, asked())) == 0.5
        streamed = replica.infer(body, asked() | {"accept": "text/event-stream"})
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert says(streamed) is None


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0.9, 0.1], [0.4, 0.6]]), 0.6),
        (np.array([0.9, 0.7]), 0.7),
        (np.array([[0.9], [0.7]]), 0.7),
        (np.array([[[0.9, 0.1], [0.3, 0.7]]]), 0.7),
        (np.array([[np.nan, np.nan], [0.9, 0.1]]), 0.0),
        (np.array([[np.nan, 0.9]]), 0.9),
        (np.array([np.float16(0.5)]), 0.5),
        (np.array([True, False]), 0.0),
        (np.array(0.25), 0.25),
        (np.empty((0, 2)), None),
        (np.empty((2, 0)), None),
        (np.array(["sure"]), None),
        (np.array([1j]), None),
    ],
)
def test_the_confidence_of_an_output(array, expected):
    found = cascading.confidence(array)
    assert found == expected
