"""The other protocols over the same core: MLflow's scoring and KServe version 1."""

import gzip
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from runtime.tests.replica import Version, running

FRAME = pd.DataFrame(
    {"age": [30.0, 45.5, 61.0, 22.0], "income": [1.0, 2.0, 3.5, 0.5], "visits": [1, 2, 8, 0]}
)
LABELS = np.array(["no", "no", "yes", "no"])
NAMED = LogisticRegression().fit(FRAME, LABELS)
BARE = LogisticRegression().fit(FRAME.to_numpy(), np.array([0, 0, 1, 0]))


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


@pytest.mark.parametrize(
    ("cells", "predictions"),
    [
        (b" 30 , 1e0,+1\n22,.5,0", [0, 0]),
        (b"1_000,1,1", None),
        ("٣٠,1,1".encode(), None),
        (b"30,1,0x1", None),
        (b"30,inf,1", None),
        (b"30,-Infinity,1", None),
        (b"30,1," + b"9" * 400, None),
        (b"30,1," + b"9" * 5000, None),
        (b"1e999,1,1", None),
    ],
)
def test_cells_are_numbers_as_they_are_written_everywhere(bare, cells, predictions):
    """Python reads more than that: underscores, digits of other scripts, infinity."""
    answer = invoke(bare, b"age,income,visits\n" + cells + b"\n", "text/csv")
    if predictions is not None:
        assert answer.json() == {"predictions": predictions}
    else:
        assert (answer.status, answer.json()["error_code"]) == (400, "BAD_REQUEST")


def test_missing_cells_of_a_table(anything):
    answer = invoke(anything, b"a,b,c\n1.5,,x\nnan,2,\nNaN,3,z\n", "text/csv")
    assert answer.json() == {
        "predictions": {"a": [1.5, None, None], "b": [None, 2.0, 3.0], "c": ["x", None, "z"]}
    }


def test_compressed_bodies_are_415(named):
    for path in ("/invocations", "/v1/models/churn:predict"):
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = named.ask("POST", path, gzip.compress(b'{"instances": [[1, 2, 3]]}'), headers)
        assert (answer.status, "compressed" in answer.body.decode()) == (415, True)


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


def test_behind_a_route_the_model_here_answers_to_any_name(named):
    body = {"dataframe_split": {"columns": list(FRAME), "data": FRAME.to_numpy().tolist()}}
    content, kind = json.dumps(body).encode(), {"content-type": "application/json"}
    own = named.ask("POST", "/v2/models/churn/invocations", content, kind)
    assert own.status == 200
    assert named.ask("POST", "/v2/models/-/invocations", content, kind).body == own.body
    rows = {"instances": json.loads(FRAME.to_json(orient="records"))}
    assert v1(named, rows).json() == named.ask("POST", "/v2/models/-/v1/models/-:predict", rows).json()
    tensors = [
        {"name": name, "shape": [4], "datatype": "FP64", "data": FRAME[name].astype(float).tolist()}
        for name in FRAME
    ]
    assert named.ask("GET", "/v2/models/-").json()["name"] == "churn"
    assert named.ask("GET", "/v2/models/-/versions/99").status == 404
    told = {"inputs": tensors, "model_name": "public"}
    assert named.ask("POST", "/v2/models/-/infer", told).status == 400
    answer = named.ask("POST", "/v2/models/-/infer", told, {"x-podium-route": "public"})
    assert (answer.status, answer.json().get("model_name")) == (200, "churn"), answer.body
