"""Streamed answers of a real replica: event by event, at the reader's pace, and never half an answer as a whole one."""

import contextlib
import json

import numpy as np
import pytest

from runtime.tests.replica import Connection, python_version, running, tensor
from runtime.tests.sources import ANYTHING

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
    def made():
        return streaming.metric("event_seconds_count")

    def held_back():
        before = made()
        for _ in range(20):
            assert streaming.infer({"inputs": [tensor(np.ones(1), "x")]}).status == 200
        return made() == before

    with stream(streaming, asked("large", 1000)) as response:
        reader = events(response)
        next(reader)
        streaming.wait_for(held_back)
        held = made()
        assert (held < 100, streaming.metric("streams")) == (True, 1)
        for _ in range(int(held) + 20):
            next(reader)
        assert made() > held


def test_a_request_of_http_1_0_behind_a_stream_changes_nothing_about_it(streaming):
    with contextlib.closing(Connection(streaming.address)) as connection:
        connection.request("POST", "/v2/models/churn/generate_stream", json.dumps(asked("slow", 60)).encode())
        got = connection.sock.recv(65536)
        connection.sock.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
        assert streaming.infer({"inputs": [tensor(np.ones(1), "x")]}).status == 200
        while piece := connection.sock.recv(65536):
            got += piece
    head, rest = got.split(b"\r\n\r\n", 1)
    assert b"transfer-encoding: chunked" in head
    count = 0
    while size := int(rest[: rest.index(b"\r\n")], 16):
        start = rest.index(b"\r\n") + 2
        assert rest[start:].startswith(b"data: {")
        rest, count = rest[start + size + 2 :], count + 1
    assert count == 60
    assert rest.startswith(b"0\r\n\r\nHTTP/1.1 200")


def test_a_model_that_cannot_stream_says_so(tmp_path):
    with running(python_version(tmp_path, ANYTHING).write()) as anything:
        with stream(anything, {"inputs": [tensor(np.ones(1), "x")]}) as response:
            assert response.status == 404
            assert "predict_stream" in response.read().decode()
        answer = anything.infer({"inputs": [tensor(np.ones(1), "x")]}, {"accept": "text/event-stream"})
        assert answer.json()["outputs"][0]["data"] == [1.0]
