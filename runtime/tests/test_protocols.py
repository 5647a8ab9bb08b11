"""The other protocols over the same core: MLflow's scoring, KServe version 1, binary tensors, streamed answers."""

import contextlib
import json
import pickle
import struct

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from runtime.tests.replica import Connection, Version, python_version, running, tensor

FRAME = pd.DataFrame(
    {"age": [30.0, 45.5, 61.0, 22.0], "income": [1.0, 2.0, 3.5, 0.5], "visits": [1, 2, 8, 0]}
)
LABELS = np.array(["no", "no", "yes", "no"])
NAMED = LogisticRegression().fit(FRAME, LABELS)
BARE = LogisticRegression().fit(FRAME.to_numpy(), np.array([0, 0, 1, 0]))
TYPED = """
import numpy as np
class Model:
    signature = {"inputs": [{"name": "n", "datatype": "INT64", "shape": [-1]},
                            {"name": "s", "datatype": "BYTES", "shape": [-1]},
                            {"name": "b", "datatype": "BOOL", "shape": [-1], "optional": True}],
                 "outputs": [{"name": "twice", "datatype": "INT64", "shape": [-1]},
                             {"name": "text", "datatype": "BYTES", "shape": [-1]},
                             {"name": "half", "datatype": "BF16", "shape": [-1]}]}
    def predict(self, inputs):
        n = inputs["n"]
        return {"twice": n * 2, "text": inputs["s"], "half": (n / 2).astype(np.float32)}
"""
ANYTHING = """
class Model:
    def predict(self, inputs):
        if "fail" in inputs:
            raise ValueError("no /secret/place/here, please")
        return inputs
"""


def sklearn_version(root, estimator):
    flavor = {"name": "sklearn", "entry": "model.pkl", "options": {"format": "pickle"}}
    return Version(root, flavor, {"model.pkl": pickle.dumps(estimator)})


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    with running(sklearn_version(tmp_path_factory.mktemp("named"), NAMED).write()) as made:
        yield made


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    with running(sklearn_version(tmp_path_factory.mktemp("bare"), BARE).write()) as made:
        yield made


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    with running(python_version(tmp_path_factory.mktemp("typed"), TYPED).write()) as made:
        yield made


@pytest.fixture(scope="module")
def anything(tmp_path_factory):
    with running(python_version(tmp_path_factory.mktemp("anything"), ANYTHING).write()) as made:
        yield made


def invoke(replica, body, kind="application/json"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return replica.ask("POST", "/invocations", content, {"content-type": kind})


def v1(replica, body):
    return replica.ask("POST", "/v1/models/churn:predict", body)


def frame_bodies(frame):
    rows = frame.to_numpy().tolist()
    yield {"dataframe_split": json.loads(frame.to_json(orient="split"))}, "application/json"
    yield (
        {"dataframe_records": json.loads(frame.to_json(orient="records"))},
        "application/json; charset=utf-8",
    )
    yield {"instances": json.loads(frame.to_json(orient="records"))}, "application/json"
    yield {"inputs": frame.to_dict(orient="list")}, "application/json"
    yield frame.to_csv(index=False).encode(), "text/csv"
    yield {"dataframe_split": {"data": rows}}, "application/json"
    yield {"instances": rows}, "application/json"
    yield {"inputs": rows}, "application/json"


@pytest.mark.filterwarnings("ignore:X (has|does not have):UserWarning")
@pytest.mark.parametrize("place", range(8))
def test_invocations_answer_as_mlflows_own_server_does(tmp_path, named, bare, place):
    import mlflow.pyfunc.scoring_server as scoring
    import mlflow.sklearn

    for replica, estimator, unnamed in ((named, NAMED, False), (bare, BARE, True)):
        body, kind = list(frame_bodies(FRAME))[place]
        folder = tmp_path / type(estimator.classes_[0]).__name__
        mlflow.sklearn.save_model(
            estimator, folder, pip_requirements=["numpy"], serialization_format="pickle"
        )
        model = mlflow.pyfunc.load_model(str(folder))
        content = body.decode() if isinstance(body, bytes) else json.dumps(body)
        answer = invoke(replica, body, kind)
        assert answer.status == 200, answer.body
        assert answer.json() == {
            "predictions": estimator.predict(FRAME if not unnamed else FRAME.to_numpy()).tolist()
        }
        if place in (2, 3):
            continue  # of these MLflow makes a dict of arrays, which it hands to scikit-learn as it is: refused
        wanted = scoring.invocations(content, kind, model, None)
        assert (answer.status, answer.json()) == (wanted.status, json.loads(wanted.response))


def test_columns_in_another_order_and_more_of_them(named):
    frame = FRAME.assign(extra="x")[["extra", "visits", "income", "age"]]
    for body, kind in list(frame_bodies(frame))[:5]:
        assert invoke(named, body, kind).json() == {"predictions": LABELS.tolist()}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "JSON"),
        ([], "an object"),
        ({}, "exactly one"),
        ({"instances": [[1]], "inputs": [[1]]}, "exactly one"),
        ({"instances": [[1, 2, 3]], "params": {"a": 1}}, "params"),
        ({"dataframe_split": []}, "dataframe_split"),
        ({"dataframe_split": {"columns": ["age"]}}, "dataframe_split"),
        ({"dataframe_split": {"columns": ["age"], "data": [[1]]}}, "income"),
        ({"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}}, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["age"], "data": [[1, 2]]}}, "dataframe_split.data[0]"),
        ({"dataframe_split": {"columns": [["age"]], "data": [[1]]}}, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": 3}}, "dataframe_split.data"),
        ({"dataframe_records": []}, "dataframe_records"),
        ({"dataframe_records": {"a": 1}}, "dataframe_records"),
        ({"dataframe_records": [{"age": 1, "income": 1, "visits": 1}, {"age": 1}]}, "dataframe_records[1]"),
        ({"dataframe_records": [{"age": 1, "income": 1, "visits": 1}, 7]}, "dataframe_records[1]"),
        ({"instances": [[1, 2], [1]]}, "instances.data[1]"),
        ({"instances": [[[[1]]]]}, "shape"),
        ({"instances": []}, "[0]"),
        ({"instances": "x"}, "instances"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"age": [1], "income": [1], "visits": [{"a": 1}]}}, "inputs[2]"),
        ({"instances": [["secret-1", 2, 3]]}, "instances"),
    ],
)
def test_a_refused_invocation_says_why_as_mlflow_words_it(named, body, words):
    answer = invoke(named, body)
    assert (answer.status, set(answer.json())) == (400, {"error_code", "message"}), answer.body
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert words in answer.json()["message"]
    assert "secret" not in answer.body.decode()


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"a,b\n",
        b"age,income,visits\n1,2\n",
        b"a,a,a\n1,2,3\n",
        b"\xff\xfe",
        b'a,"b\n1,2',
        b"x,y,z\n1,2,3\n",
    ],
)
def test_a_refused_table(named, table):
    assert invoke(named, table, "text/csv").status == 400


def test_other_types_of_content_are_415(named):
    for kind in ("application/xml", "", "application/json; charset=latin-1", "text/csv; header=present"):
        answer = invoke(named, {"instances": [[1, 2, 3]]}, kind)
        assert (answer.status, answer.headers["content-type"]) == (415, "text/plain")


def test_ping_health_and_version(named):
    for path in ("/ping", "/health"):
        answer = named.ask("GET", path)
        assert (answer.status, answer.body) == (200, b"\n")
    assert named.ask("GET", "/version").body == b"0.1.0"
    assert named.ask("GET", "/invocations").status == 405


def test_kserve_v1(named, bare):
    rows = FRAME.to_numpy().tolist()
    assert v1(bare, {"instances": rows}).json() == {"predictions": BARE.predict(FRAME.to_numpy()).tolist()}
    records = FRAME.to_dict(orient="records")
    assert v1(named, {"instances": records}).json() == {"predictions": LABELS.tolist()}
    assert v1(named, {"inputs": FRAME.to_dict(orient="list")}).json() == {"predictions": LABELS.tolist()}
    assert named.ask("GET", "/v1/models").json() == {"models": ["churn"]}
    assert named.ask("GET", "/v1/models/churn").json() == {"name": "churn", "ready": True}
    assert named.ask("GET", "/v1/models/other").status == 404
    assert named.ask("POST", "/v1/models/other:predict", {"instances": rows}).status == 404
    assert named.ask("POST", "/v1/models/churn:explain", {"instances": rows}).status == 404
    for bad in ({}, [], {"instances": {}}, {"instances": rows, "more": 1}, {"instances": [[1]]}):
        answer = v1(bare, bad)
        assert answer.status == 400
        assert answer.json()["error"]


def test_several_inputs_and_outputs_in_the_other_protocols(typed):
    rows = [{"n": 1, "s": "a", "b": True}, {"n": 2.0, "s": None, "b": False}]
    records = [{"twice": 2, "text": "a", "half": 0.5}, {"twice": 4, "text": None, "half": 1.0}]
    assert v1(typed, {"instances": rows}).json() == {"predictions": records}
    lists = {"twice": [2, 4], "text": ["a", None], "half": [0.5, 1.0]}
    assert invoke(typed, {"dataframe_records": rows}).json() == {"predictions": lists}
    table = b"n,s,b\n1,a,True\n2,,False\n"
    assert invoke(typed, table, "text/csv").json() == {"predictions": lists}
    for bad in (
        {"n": 1.5, "s": "a"},
        {"n": 1},
        {"n": 1, "s": 2},
        {"n": 1, "s": "a", "other": 1},
        {"other": 1},
    ):
        assert invoke(typed, {"dataframe_records": [bad]}).status == 400, bad
    assert invoke(typed, {"instances": [[1, "a"]]}).status == 400


def test_a_model_without_a_signature_gets_what_the_values_show(anything):
    answer = invoke(
        anything, {"inputs": {"a": [1, 2], "b": [0.5, None], "c": ["x", "y"], "d": [True, False]}}
    )
    assert answer.json() == {
        "predictions": {"a": [1, 2], "b": [0.5, None], "c": ["x", "y"], "d": [True, False]}
    }
    failed = invoke(anything, {"inputs": {"fail": [1]}})
    assert failed.status == 500
    assert failed.json() == {"error_code": "INTERNAL_ERROR", "message": "ValueError: no <path>, please"}


# Binary tensors.


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
        ({"shape": [2**31 - 1] * 16}, b"\0" * 8, None, "inputs[0].parameters.binary_data_size"),
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
    wrong = anything.infer(good | {"outputs": [{"name": "x", "parameters": {"binary_data": "yes"}}]})
    assert (wrong.status, wrong.json()["field"]) == (400, "outputs[0].parameters.binary_data")
    wrong = anything.infer(good | {"outputs": [{"name": "x", "parameters": {"classification": 3}}]})
    assert (wrong.status, wrong.json()["field"]) == (400, "outputs[0].parameters.classification")


def test_a_tensor_over_the_limit_of_elements(tmp_path):
    with running(python_version(tmp_path, ANYTHING, maxTensorElements=10).write()) as replica:
        assert replica.infer({"inputs": [tensor(np.ones(10), "x")]}).status == 200
        refused = replica.infer({"inputs": [tensor(np.ones(11), "x")]})
        assert (refused.status, refused.json()["field"]) == (400, "inputs[0].shape")


# Streamed answers.

STREAMING = """
import os, time
import numpy as np
class Model:
    def predict(self, inputs):
        return inputs["x"] * 2
    def predict_stream(self, inputs):
        kind, count = inputs["kind"][0], int(inputs["count"][0])
        try:
            for number in range(count):
                if kind == "fail" and number == 2:
                    raise ValueError("no more /of/these/paths")
                if kind == "slow":
                    time.sleep(0.01)
                if kind == "hang" and number == 1:
                    while not os.path.exists(GATE):
                        time.sleep(0.01)
                yield {"y": np.full(100_000 if kind == "large" else 1, number)}
        finally:
            with open(GATE + ".ended", "a") as file:
                file.write(f"{kind} {number}\\n")
"""


@pytest.fixture
def streaming(tmp_path):
    source = STREAMING.replace("GATE", repr(str(tmp_path / "gate")))
    settings = {"maxStreams": 2, "requestTimeoutSeconds": 1, "warmup": {"requests": 0}}
    with running(python_version(tmp_path, source, **settings).write()) as made:
        made.ended = tmp_path / "gate.ended"
        yield made


def asked(kind, count):
    return {
        "id": "s",
        "inputs": [
            {"name": "kind", "datatype": "BYTES", "shape": [1], "data": [kind]},
            {"name": "count", "datatype": "INT64", "shape": [1], "data": [count]},
        ],
    }


@contextlib.contextmanager
def stream(replica, body, path="/v2/models/churn/generate_stream", headers=()):
    with contextlib.closing(Connection(replica.address)) as connection:
        connection.request("POST", path, json.dumps(body).encode(), dict(headers))
        yield connection.getresponse()


def events(response):
    for line in response:
        if line.strip():
            assert line.startswith(b"data: ")
            yield json.loads(line[6:])


def test_one_event_per_answer(streaming):
    with stream(streaming, asked("fine", 5)) as response:
        assert (response.status, response.getheader("content-type")) == (200, "text/event-stream")
        got = list(events(response))
    assert [event["outputs"][0]["data"] for event in got] == [[n] for n in range(5)]
    assert {(event["id"], event["model_name"]) for event in got} == {("s", "churn")}
    accept = {"accept": "text/event-stream"}
    with stream(streaming, asked("fine", 2), "/v2/models/churn/versions/3/infer", accept) as response:
        assert len(list(events(response))) == 2
    assert streaming.metric("requests_total", code="200") == 2
    assert streaming.metric("streams") == 0


def test_an_error_after_the_first_event_is_the_last_one(streaming):
    with stream(streaming, asked("fail", 5)) as response:
        got = list(events(response))
    assert got[2:] == [{"error": "ValueError: no more <path>"}]
    assert streaming.metric("requests_total", code="500") == 1
    with stream(streaming, {"inputs": [tensor(np.ones(1), "x")]}) as response:
        assert (response.status, json.loads(response.read())) == (500, {"error": "KeyError: 'kind'"})


def test_an_event_that_takes_too_long_ends_the_stream(streaming, tmp_path):
    with stream(streaming, asked("hang", 3)) as response:
        got = list(events(response))
    assert "outputs" in got[0]
    assert "deadline" in got[1]["error"]
    (tmp_path / "gate").touch()
    streaming.wait_for(streaming.ended.exists)
    assert streaming.infer({"inputs": [tensor(np.ones(1), "x")]}).status == 200


def test_a_client_that_hangs_up_stops_the_stream(streaming):
    with stream(streaming, asked("slow", 100_000)) as response:
        next(events(response))
    streaming.wait_for(lambda: streaming.ended.exists() and streaming.ended.read_text().endswith("\n"))
    assert int(streaming.ended.read_text().split()[1]) < 5000
    streaming.wait_for(lambda: streaming.metric("streams") == 0)
    assert streaming.metric("requests_total", code="499") == 1


def test_others_are_served_between_events_and_too_many_streams_are_429(streaming):
    with stream(streaming, asked("slow", 1000)) as one, stream(streaming, asked("slow", 1000)) as two:
        firsts = [next(events(one)), next(events(two))]
        assert len(firsts) == 2
        assert streaming.infer({"inputs": [tensor(np.ones(1), "x")]}).status == 200
        with stream(streaming, asked("fine", 1)) as third:
            assert third.status == 429
        assert next(events(one))


def test_a_slow_reader_holds_back_its_own_stream_only(streaming):
    with stream(streaming, asked("large", 1000)) as response:
        reader = events(response)
        next(reader)
        made = streaming.metric("event_seconds_count")
        for _ in range(20):
            assert streaming.infer({"inputs": [tensor(np.ones(1), "x")]}).status == 200
        streaming.wait_for(lambda: streaming.metric("streams") == 1)
        assert streaming.metric("event_seconds_count") < 100
        for _ in range(20):
            next(reader)
        assert made < 100


def test_a_model_that_cannot_stream_says_so(anything):
    with stream(anything, {"inputs": [tensor(np.ones(1), "x")]}) as response:
        assert response.status == 404
        assert "predict_stream" in response.read().decode()
    answer = anything.infer({"inputs": [tensor(np.ones(1), "x")]}, {"accept": "text/event-stream"})
    assert answer.json()["outputs"][0]["data"] == [1.0]


def test_other_protocols_answer_below_the_model_s_own_path(named):
    rows = FRAME.to_numpy().tolist()
    base, kind = "/v2/models/churn", {"content-type": "application/json"}
    for path in ("/invocations", "/v1/models/churn:predict"):
        alone = named.ask("POST", path, {"instances": rows}, kind)
        for below in (base, f"{base}/versions/3"):
            answer = named.ask("POST", below + path, {"instances": rows}, kind)
            assert (answer.status, answer.json()) == (alone.status, alone.json())
        assert named.ask("GET", base + path).status == 405
        assert named.ask("POST", f"/v2/models/other{path}", {"instances": rows}, kind).status == 404
        assert named.ask("POST", f"{base}/versions/9{path}", {"instances": rows}, kind).status == 404
    for path in ("/ping", "/health", "/version", "/v1/models", "/v1/models/churn"):
        assert named.ask("GET", base + path).body == named.ask("GET", path).body
    for path in ("metrics", "v2/models/churn", "inference.GRPCInferenceService/ServerLive", ""):
        assert named.ask("GET", f"{base}/{path}").status == 404
