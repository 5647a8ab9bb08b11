"""A real process over a real socket: what it answers, and that every answer is as the OpenAPI description says."""

import contextlib
import http.client
import json
import pickle
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from runtime.tests.contract import DOCUMENT, conforms, validator
from runtime.tests.replica import Connection, Version, python_version, running, tensor

X, Y = load_breast_cancer(return_X_y=True)
ESTIMATOR = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(X, Y)


def sklearn_version(root, estimator=ESTIMATOR, **settings):
    flavor = {"name": "sklearn", "entry": "model.pkl", "options": {"format": "pickle"}}
    return Version(root, flavor, {"model.pkl": pickle.dumps(estimator)}, settings=settings)


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    version = sklearn_version(tmp_path_factory.mktemp("sklearn"), maxBodyBytes=100_000)
    with running(version.write()) as made:
        yield made


def outputs_of(answer):
    return {output["name"]: output for output in conforms(answer).json()["outputs"]}


def test_the_description_is_openapi():
    validate(DOCUMENT)


def test_an_answer_equals_predict_to_the_last_bit(replica):
    holes = X[:40].copy()
    holes[::3, ::4] = np.nan
    for rows in (X[:1], X[:40], holes):
        outputs = outputs_of(replica.infer({"inputs": [tensor(rows)]}))
        assert outputs["predict"]["data"] == ESTIMATOR.predict(rows).tolist()
        assert outputs["predict_proba"]["shape"] == [len(rows), 2]
        assert outputs["predict_proba"]["data"] == ESTIMATOR.predict_proba(rows).ravel().tolist()


def test_nested_data_other_types_and_wanted_outputs(replica):
    body = {
        "id": "abc",
        "inputs": [
            {"name": "input", "datatype": "INT32", "shape": [2, 30], "data": X[:2].astype(int).tolist()}
        ],
        "outputs": [{"name": "predict"}],
    }
    answer = replica.infer(body)
    assert answer.json()["id"] == "abc"
    assert list(outputs_of(answer)) == ["predict"]


def test_many_at_once_all_get_their_own_answer(replica):
    wanted = ESTIMATOR.predict_proba(X[:160])
    failures = []

    def client(part):
        with contextlib.closing(Connection(replica.address)) as connection:
            for index in range(part, 160, 16):
                answer = connection.ask(
                    "POST", "/v2/models/churn/infer", {"inputs": [tensor(X[index : index + 1])]}
                )
                got = outputs_of(answer)["predict_proba"]["data"]
                # A batch goes through a matrix product, whose last bit depends on the number of rows.
                if answer.status != 200 or not np.allclose(got, wanted[index], rtol=0, atol=1e-12):
                    failures.append((index, answer.status, got))

    threads = [threading.Thread(target=client, args=(part,)) for part in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert replica.metric("batch_rows_sum") > replica.metric("batch_rows_count")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data": [1.0] * 29}, "inputs[0].data"),
        ({"data": [1.0] * 29 + ["x"]}, "inputs[0].data[29]"),
        ({"datatype": "BYTES", "data": ["secret-1234"] * 30}, "inputs[0].datatype"),
        ({"datatype": "FLOAT"}, "inputs[0].datatype"),
        ({"shape": [30]}, "inputs[0].shape"),
        ({"shape": [1, 29], "data": [1.0] * 29}, "inputs[0].shape"),
        ({"shape": [2**40, 2**40]}, "inputs[0].shape[0]"),
        ({"shape": [0, 30], "data": []}, "inputs[0].shape"),
        ({"name": "unknown"}, "inputs[0].name"),
    ],
)
def test_a_refusal_names_field_expected_and_got(replica, change, field):
    body = {"inputs": [tensor(X[:1]) | change]}
    answer = conforms(replica.infer(body))
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert "secret" not in answer.body.decode()


def test_requests_that_are_no_requests(replica):
    for body in (b"", b"{", b"\x00\xff", b"null", b"[" * 90_000, b'{"inputs":' * 5000, b"[" * 40 + b"]" * 40):
        assert conforms(replica.infer(body)).status == 400
    good = {"inputs": [tensor(X[:1])]}
    compressed = conforms(replica.infer(good, {"content-encoding": "gzip"}))
    assert (compressed.status, compressed.json()["field"]) == (415, "content-encoding")
    field = "inference-header-content-length"
    for length in ("x", "-1", "9999999", ""):
        assert conforms(replica.infer(good, {field: length})).json()["field"] == field
    assert conforms(replica.infer(good, {field: "10"})).json()["field"] == ""
    wrong = conforms(replica.infer({"inputs": [tensor(X[:1])], "outputs": [{"name": "y"}]}))
    assert wrong.json()["field"] == "outputs[0].name"


def test_a_body_over_the_limit_is_refused_however_it_comes(replica):
    assert conforms(replica.infer(b" " * 100_001)).status == 413
    assert conforms(replica.infer(b" " * 5_000_000)).status == 413
    with contextlib.closing(Connection(replica.address)) as connection:
        chunks = (b" " * 10_000 for _ in range(50))
        connection.request(
            "POST", "/v2/models/churn/infer", chunks, {"transfer-encoding": "chunked"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413


def test_a_body_in_pieces_is_put_together(replica):
    body = json.dumps({"inputs": [tensor(X[:30])]}).encode()
    with contextlib.closing(Connection(replica.address)) as connection:
        pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
        connection.request(
            "POST", "/v2/models/churn/infer", pieces, {"transfer-encoding": "chunked"}, encode_chunked=True
        )
        answer = json.loads(connection.getresponse().read())
    assert answer["outputs"][0]["data"] == ESTIMATOR.predict(X[:30]).tolist()


def test_everything_that_can_be_read(replica):
    def read(path, described):
        return conforms(replica.ask("GET", path), described, "get")

    assert read("/v2", "/v2").json()["name"] == "podium-runtime"
    assert read("/v2/health/live", "/v2/health/live").status == 200
    assert read("/v2/health/ready", "/v2/health/ready").json() == {"ready": True, "phase": "ready"}
    metadata = read("/v2/models/churn", "/v2/models/{name}").json()
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 30]}]
    assert metadata["properties"]["classes"] == [0, 1]
    assert read("/v2/models/churn/versions/3", "/v2/models/{name}/versions/{version}").json() == metadata
    assert read("/v2/models/churn/ready", "/v2/models/{name}/ready").json()["ready"]
    assert read("/v2/models/churn/versions/3/ready", "/v2/models/{name}/versions/{version}/ready").json()[
        "ready"
    ]
    text = read("/metrics", "/metrics").body.decode()
    assert 'model="churn",version="3",revision="churn-00002"' in text


def test_only_the_served_name_and_version_are_known(replica):
    body = {"inputs": [tensor(X[:1])]}
    versioned = "/v2/models/{name}/versions/{version}/infer"
    assert conforms(replica.ask("POST", "/v2/models/churn/versions/3/infer", body), versioned).status == 200
    assert conforms(replica.ask("POST", "/v2/models/%63hurn/infer", body)).status == 200
    assert conforms(replica.ask("POST", "/v2/models/churn/versions/2/infer", body), versioned).status == 404
    assert conforms(replica.ask("POST", "/v2/models/other/infer", body)).status == 404
    assert conforms(replica.ask("GET", "/v2/models/other"), "/v2/models/{name}", "get").status == 404
    for path in (
        "/",
        "/v2/models",
        "/v2/models/churn/",
        "/v2/models/churn/infer/x",
        "/v2/models/churn%2Finfer",
        "//v2",
    ):
        assert replica.ask("GET", path).status == 404, path
    wrong = replica.ask("GET", "/v2/models/churn/infer")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert replica.ask("POST", "/v2/health/live").status == 405


def test_what_clients_offer_beyond_the_protocol_is_404(replica):
    model = "/v2/models/churn"
    for path in (
        "/v2/repository/index",
        f"{model}/generate",
        f"{model}/trace/setting",
        "/v1/models/churn:explain",
    ):
        assert replica.ask("POST", path, {}).status == 404, path
    for path in (f"{model}/config", f"{model}/stats", "/v2/systemsharedmemory/status", "/v2/logging"):
        assert replica.ask("GET", path).status == 404, path


def test_headers_come_back(replica):
    body = {"inputs": [tensor(X[:1])]}
    answer = replica.infer(body, {"x-request-id": "a-1"})
    assert (answer.headers["x-request-id"], answer.headers["x-podium-revision"]) == ("a-1", "churn-00002")
    refused = replica.infer({}, {"x-request-id": "a-2"})
    assert (refused.headers["x-request-id"], refused.headers["x-podium-revision"]) == ("a-2", "churn-00002")
    assert "x-request-id" not in replica.infer(body, {"x-request-id": "b" * 129}).headers
    assert "x-request-id" not in replica.infer(body, {"x-request-id": "with space"}).headers


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["inputs", "name", "shape", "datatype", "data", "outputs", "id"]),
                inner,
                max_size=5,
            )
        ),
    ).map(lambda document: json.dumps(document).encode())
)
def test_no_body_is_ever_answered_with_a_server_error(replica, body):
    answer = conforms(replica.infer(body))
    assert answer.status in (200, 400)


MOODY = """
import os, time
class Model:
    signature = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}],
                 "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}]}
    def predict(self, inputs):
        x = inputs["x"]
        print("a model that prints", flush=True)
        if (x == -1).any():
            raise ValueError("no negatives in /secret/place/model.py, please")
        if (x == 7).any():
            open(GATE + ".held", "w").close()
            while not os.path.exists(GATE):
                time.sleep(0.002)
        return x * 2
"""


def x(*values):
    return {"inputs": [tensor(np.array(values, dtype=float), "x")]}


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "gate"


@pytest.fixture
def moody(tmp_path, gate):
    source = MOODY.replace("GATE", repr(str(gate)))
    settings = {"queue": {"maxLength": 3}, "requestTimeoutSeconds": 30}
    with running(python_version(tmp_path, source, **settings).write()) as made:
        yield made


class Asking(threading.Thread):
    """One request in the background."""

    def __init__(self, replica, body, headers=None):
        super().__init__(daemon=True)
        self.replica, self.body, self.headers, self.answer = replica, body, headers or {}, None
        self.start()

    def run(self):
        self.answer = self.replica.infer(self.body, self.headers)

    def finished(self):
        self.join(60)
        assert self.answer is not None
        return conforms(self.answer)


def hold(moody, gate):
    """Occupy the model with a request that waits for the gate."""
    asking = Asking(moody, x(7))
    moody.wait_for(gate.with_name("gate.held").exists)
    return asking


def test_the_models_own_exception_is_500_and_its_neighbours_are_answered(moody, gate):
    held = hold(moody, gate)
    asked = [Asking(moody, x(1, 2)), Asking(moody, x(-1)), Asking(moody, x(3))]
    moody.wait_for(lambda: moody.metric("queue_length") == 3)
    gate.touch()
    answers = [asking.finished() for asking in asked]
    assert [answer.status for answer in answers] == [200, 500, 200]
    assert outputs_of(answers[0])["y"]["data"] == [2.0, 4.0]
    assert outputs_of(answers[2])["y"]["data"] == [6.0]
    assert answers[1].json() == {"error": "ValueError: no negatives in <path>, please"}
    assert held.finished().status == 200
    assert moody.metric("requests_total", code="500") == 1
    assert moody.metric("batch_splits_total") >= 1
    # The log says where it was raised, and has no message that could carry an input.
    failures = [line for line in moody.log_lines() if line.get("exception") == "ValueError"]
    assert failures
    assert any("predict" in frame for frame in failures[0]["frames"])
    assert "no negatives" not in json.dumps(failures)


def test_a_full_queue_is_429_with_retry_after(moody, gate):
    held = hold(moody, gate)
    asked = [Asking(moody, x(value)) for value in range(3)]
    moody.wait_for(lambda: moody.metric("queue_length") == 3)
    refused = conforms(moody.infer(x(4)))
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert moody.ask("GET", "/v2/health/live").status == 200
    gate.touch()
    assert [asking.finished().status for asking in [held, *asked]] == [200] * 4


@pytest.mark.parametrize("chunked", [False, True])
def test_waiting_bodies_cannot_take_all_the_memory(tmp_path, gate, chunked):
    source = MOODY.replace("GATE", repr(str(gate)))
    with running(python_version(tmp_path, source, maxBodyBytes=1000).write()) as made:
        held = hold(made, gate)
        body = json.dumps(x(1)).encode()
        body += b" " * (1000 - len(body))

        def ask(connection):
            headers = {"transfer-encoding": "chunked"} if chunked else {}
            content = iter([body[:500], body[500:]]) if chunked else body
            connection.request("POST", "/v2/models/churn/infer", content, headers, encode_chunked=chunked)
            return connection

        # Eight bodies of the largest size may be held; the one that the model has takes a few bytes of that.
        waiting = [ask(Connection(made.address)) for _ in range(7)]
        made.wait_for(lambda: made.metric("queue_length") == 7)
        with contextlib.closing(ask(Connection(made.address))) as refused:
            assert refused.getresponse().status == 429
        gate.touch()
        for connection in waiting:
            assert connection.getresponse().status == 200
            connection.close()
        assert held.finished().status == 200
        assert conforms(made.infer(body)).status == 200


def test_expired_requests_are_504_and_never_reach_the_model(moody, gate):
    held = hold(moody, gate)
    late = Asking(moody, x(5), {"x-envoy-expected-rq-timeout-ms": "20"})
    assert late.finished().status == 504
    gate.touch()
    assert held.finished().status == 200
    assert moody.metric("batch_rows_sum") == moody.metric("batch_rows_count")
    assert moody.metric("requests_total", code="504") == 1


def test_a_request_whose_client_hung_up_never_reaches_the_model(moody, gate):
    held = hold(moody, gate)
    rows = moody.metric("batch_rows_sum")  # without the held call, which is counted when it ends
    connection = Connection(moody.address)
    connection.request("POST", "/v2/models/churn/infer", json.dumps(x(5)).encode())
    moody.wait_for(lambda: moody.metric("queue_length") == 1)
    connection.close()
    moody.wait_for(lambda: moody.metric("requests_total", code="499") == 1)
    gate.touch()
    assert held.finished().status == 200
    assert conforms(moody.infer(x(1))).status == 200
    assert moody.metric("batch_rows_sum") == rows + 2


def test_what_a_model_prints_is_in_the_log_and_not_on_stdout(moody):
    conforms(moody.infer(x(1)))
    moody.terminate()
    assert moody.wait_end() == 0
    assert moody.process.stdout.read() == b""
    assert "a model that prints" in moody.logged()


ODD = """
import numpy as np
class Model:
    def predict(self, inputs):
        kind = inputs["kind"][0]
        return {"complex": np.array([1j]), "ragged": [[1], [1, 2]], "text": ["a", None], "words": "plain"}[kind]
"""


def test_answers_that_the_protocol_cannot_carry_are_500(tmp_path):
    with running(python_version(tmp_path, ODD).write()) as made:

        def ask(kind):
            body = {"inputs": [{"name": "kind", "datatype": "BYTES", "shape": [1], "data": [kind]}]}
            return conforms(made.infer(body))

        assert ask("complex").status == 500
        assert "complex128" in ask("complex").json()["error"]
        assert ask("ragged").status == 500
        assert outputs_of(ask("text"))["output"]["data"] == ["a", None]
        assert outputs_of(ask("words"))["output"] == {
            "name": "output",
            "shape": [],
            "datatype": "BYTES",
            "data": ["plain"],
        }


def test_a_pipelined_connection_gets_its_answers_in_order(replica):
    body = json.dumps({"inputs": [tensor(X[:1])]}).encode()
    one = b"POST /v2/models/churn/infer HTTP/1.1\r\nhost: a\r\nx-request-id: %d\r\ncontent-length: %d\r\n\r\n"
    with contextlib.closing(Connection(replica.address)) as connection:
        connection.connect()
        connection.sock.sendall(b"".join(one % (number, len(body)) + body for number in range(5)))
        got = b""
        until = time.monotonic() + 30
        while got.count(b"model_name") < 5 and time.monotonic() < until:
            got += connection.sock.recv(65536)
    order = [line for line in got.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert order == [b"x-request-id: %d" % number for number in range(5)]


def test_garbage_instead_of_http_closes_the_connection_only(replica):
    with contextlib.closing(Connection(replica.address)) as connection:
        connection.connect()
        connection.sock.sendall(b"\x16\x03\x01 not http at all\r\n\r\n")
        assert connection.sock.recv(1000).startswith(b"HTTP/1.1 400")
    with contextlib.suppress(http.client.HTTPException, OSError):
        replica.ask("POST", "/v2/models/churn/infer", b"x", {"content-length": "-1"})
    assert replica.ask("GET", "/v2/health/live").status == 200


def test_the_schema_of_requests_accepts_what_the_replica_accepts(replica):
    request = validator({"$ref": "#/components/schemas/InferRequest"})
    good = {"inputs": [tensor(X[:1])], "id": "1", "outputs": [{"name": "predict"}]}
    assert request.is_valid(good)
    assert replica.infer(good).status == 200
    for bad in ({}, good | {"x": 1}, good | {"inputs": []}, {"inputs": [tensor(X[:1]) | {"datatype": "F"}]}):
        assert not request.is_valid(bad)
        assert replica.infer(bad).status == 400
