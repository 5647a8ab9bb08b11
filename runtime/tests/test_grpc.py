"""The gRPC skin of a real replica, as the gateway asks it: one message without a frame as the body of a POST."""

import asyncio
import contextlib
from urllib.parse import unquote

import numpy as np
import pytest

from podium_runtime import errors
from podium_runtime.batching import Batcher
from podium_runtime.config import Served
from podium_runtime.core import Dataplane
from podium_runtime.grpc import PREFIX, schema, skin, wire
from podium_runtime.jobs import Limits
from podium_runtime.metrics import Metrics
from runtime.tests.replica import Connection, python_version, running

ECHO = """
import time

class Model:
    def predict(self, inputs):
        if "fail" in inputs:
            raise ValueError("50 % of /srv/models/x is grün\\nand more")
        if "complex" in inputs:
            return {"x": inputs["complex"].astype(complex)}
        if "sleep" in inputs:
            time.sleep(float(inputs["sleep"][0]))
        return inputs
"""
LOADING = """
import os, time
class Model:
    def load(self, path):
        while not os.path.exists(GATE):
            time.sleep(0.002)
    def predict(self, inputs):
        return inputs
"""


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    version = python_version(
        tmp_path_factory.mktemp("echo"), ECHO, maxBodyBytes=100_000, warmup={"requests": 0}
    )
    with running(version.write()) as made:
        yield made


def call(replica, method, body=b"", headers=None):
    return replica.ask("POST", PREFIX + method, body, headers)


def request(name="x", model="churn", **more):
    tensor = {"name": name, "datatype": "FP32", "shape": [2]}
    data = np.array([0.5, 2.0], dtype="<f4").tobytes()
    values = {"model_name": model, "inputs": [tensor], "raw_input_contents": [data]} | more
    return wire.encode(schema.INFER_REQUEST, values)


def message(answer, table):
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert "x-grpc-status" not in answer.headers
    return wire.decode(table, answer.body)


def refused(answer):
    assert (answer.headers["content-type"], answer.body) == ("application/x-protobuf", b"")
    return answer.status, int(answer.headers["x-grpc-status"]), answer.headers["x-grpc-message"]


def test_every_rpc(replica):
    assert message(call(replica, "ServerLive"), schema.LIVE) == {"live": True}
    assert message(call(replica, "ServerReady"), schema.READY) == {"ready": True}
    assert message(call(replica, "ServerMetadata"), schema.SERVER_METADATA)["name"] == "podium-runtime"
    for version in ("", "3"):
        named = wire.encode(schema.MODEL, {"name": "churn", "version": version})
        assert message(call(replica, "ModelReady", named), schema.READY) == {"ready": True}
        found = message(call(replica, "ModelMetadata", named), schema.MODEL_METADATA)
        assert (found["name"], found["versions"], found["platform"]) == ("churn", ["3"], "python")
    answer = call(replica, "ModelInfer", request(id="a", model_version="3"), {"x-request-id": "mine"})
    assert (answer.headers["x-request-id"], answer.headers["x-podium-revision"]) == ("mine", "churn-00002")
    found = message(answer, schema.INFER_RESPONSE)
    assert (found["model_name"], found["model_version"], found["id"]) == ("churn", "3", "a")
    assert np.frombuffer(found["raw_output_contents"][0], dtype="<f4").tolist() == [0.5, 2.0]


def test_failures_have_both_statuses(replica):
    """The status of HTTP is what a rollout's analysis counts, gRPC's is what the client gets."""
    unknown = wire.encode(schema.MODEL, {"name": "other"})
    assert refused(call(replica, "ModelReady", unknown))[:2] == (404, 5)
    assert refused(call(replica, "ModelInfer", request(model_version="4")))[:2] == (404, 5)
    for other in ("ModelStreamInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex"):
        assert refused(call(replica, other))[:2] == (404, 12)
    assert refused(call(replica, "ModelInfer", b"\x0a")) == (
        400, 3, "model_name: expected a varint of at most 10 bytes, got the end of the message",
    )  # fmt: skip
    assert refused(call(replica, "ModelInfer", bytes(100_001)))[:2] == (413, 8)
    status, code, words = refused(call(replica, "ModelInfer", request("fail")))
    assert (status, code) == (500, 13)
    assert words == "ValueError: 50 %25 of <path> is gr%C3%BCn%0Aand more"
    assert refused(call(replica, "ModelInfer", request("complex")))[:2] == (500, 13)


def test_behind_a_route_the_name_is_the_routes(replica):
    asked = request(model="public")
    assert call(replica, "ModelInfer", asked).status == 404
    assert call(replica, "ModelInfer", asked, {"x-podium-route": "other"}).status == 404
    answer = call(replica, "ModelInfer", asked, {"x-podium-route": "public"})
    assert answer.status == 200
    assert wire.decode(schema.INFER_RESPONSE, answer.body)["model_name"] == "churn"


def test_the_callers_deadline_counts(replica):
    seconds = np.array([1.0, 0.0], dtype="<f4").tobytes()
    body = request("sleep", raw_input_contents=[seconds])
    for header in ({"grpc-timeout": "100m"}, {"x-envoy-expected-rq-timeout-ms": "100"}):
        assert refused(call(replica, "ModelInfer", body, header))[:2] == (504, 4)


def test_garbage_costs_no_5xx_and_no_memory(replica):
    def resident():
        with open(f"/proc/{replica.process.pid}/statm") as found:
            return int(found.read().split()[1]) * 4096

    dice = np.random.default_rng(3)
    good = request()
    with contextlib.closing(Connection(replica.address)) as connection:

        def some(count):
            for number in range(count):
                body = bytearray(good if number % 2 else dice.bytes(dice.integers(1, 3000)))
                for _ in range(2 if number % 2 else 0):
                    body[dice.integers(len(body))] = dice.integers(256)
                answer = connection.ask("POST", PREFIX + "ModelInfer", bytes(body))
                assert answer.status in (200, 400, 404), (body, answer)

        some(500)
        before = resident()
        some(1500)
        assert resident() - before < 8 * 2**20
    assert message(call(replica, "ServerReady"), schema.READY) == {"ready": True}


def test_while_it_loads(tmp_path):
    gate = tmp_path / "gate"
    with running(
        python_version(tmp_path, LOADING.replace("GATE", repr(str(gate)))).write(), ready=False
    ) as made:
        made.wait_for(lambda: call(made, "ServerLive").status == 200)
        assert message(call(made, "ServerReady"), schema.READY) == {"ready": False}
        assert refused(call(made, "ModelInfer", request()))[:2] == (503, 14)
        named = wire.encode(schema.MODEL, {"name": "churn"})
        assert refused(call(made, "ModelMetadata", named))[:2] == (503, 14)
        assert message(call(made, "ModelReady", named), schema.READY) == {"ready": False}
        gate.touch()
        made.wait_ready()
        assert message(call(made, "ModelReady", named), schema.READY) == {"ready": True}


def test_a_failure_is_logged_with_what_ties_it_to_other_logs(replica):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"traceparent": trace, "x-request-id": "failing"}
    assert refused(call(replica, "ModelInfer", request("fail"), headers))[:2] == (500, 13)
    found = [line for line in replica.log_lines() if line.get("request_id") == "failing"]
    assert [(line["traceparent"], line["exception"]) for line in found] == [(trace, "ValueError")]


def test_a_replica_whose_model_hangs_is_not_live():
    async def live():
        served = Served("churn", "3", "default", "churn-00002")
        metrics = Metrics(served)
        batcher = Batcher(Limits(1, 0, 1, 1), metrics, asyncio.get_running_loop())
        core = Dataplane(served, batcher, 30, 10)
        found = []
        for happen in (lambda: None, core.hang):
            happen()
            status, _, body = await skin.answer(core, "ServerLive", b"", skin.Caller(None), pytest.fail)
            found.append((status, wire.decode(schema.LIVE, body)))
        batcher.stop()
        return found

    assert asyncio.run(live()) == [(200, {"live": True}), (200, {"live": False})]


@pytest.mark.parametrize("ahead", range(10))
@pytest.mark.parametrize("letter", ["漢", "ü", "%", "😀", "x"])
def test_long_messages_are_cut_between_characters(letter, ahead):
    text = "y" * ahead + letter * 5000
    _, headers, _ = skin.refusal(errors.UnknownPath(text))
    told = dict(headers)[b"x-grpc-message"].decode()
    assert 4096 - 12 <= len(told) <= 4096
    assert text.startswith(unquote(told, errors="strict"))
