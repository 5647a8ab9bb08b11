"""What only a real replica behind a real Envoy shows: streams for longer than one request may take, other protocols."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.tests.replica import Replica, python_version, running
from tests.integration.gateway.conftest import Gateway
from tests.integration.gateway.documents import deployment, revision
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration
TIMEOUT = 1.0
"""Seconds that a request may take; a stream's events come over more than twice that."""
MODEL = """
import pathlib, time

class Model:
    def load(self, path):
        self.gates = pathlib.Path(path)

    def predict(self, inputs):
        time.sleep(float(inputs["x"][0]))
        return {"y": inputs["x"]}

    def predict_stream(self, inputs):
        # Each event waits for its gate, so a reader that sees one has seen it before the next was made.
        for number in range(int(inputs["x"][0])):
            until = time.monotonic() + 20
            while not (self.gates / f"gate-{number}").exists() and time.monotonic() < until:
                time.sleep(0.005)
            yield {"y": inputs["x"] * 0 + number}
"""


class Site:
    """A gateway with one real replica of Deployment `talk`, in the default workspace and in `team`."""

    def __init__(self, gateway: Gateway, replica: Replica, gates: Path) -> None:
        self.gateway, self.replica, self.gates = gateway, replica, gates
        self.connections: list[http.client.HTTPConnection] = []

    def ask(self, path: str, number: float, **headers: str) -> http.client.HTTPResponse:
        """The answer's head; its body is read by whoever asked."""
        tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [number]}
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        self.connections.append(connection)
        connection.request("POST", path, json.dumps({"inputs": [tensor]}), headers)
        return connection.getresponse()

    def other(self, path: str, document: Any) -> tuple[int, Any]:
        """Status and document of an answer by another protocol."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)
        self.connections.append(connection)
        connection.request("POST", path, json.dumps(document), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def open_gate(self, number: int) -> None:
        (self.gates / f"gate-{number}").touch()

    def close_gates(self) -> None:
        for gate in self.gates.glob("gate-*"):
            gate.unlink()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("talk")
    served = {"name": "talk", "version": "1", "workspace": "default", "revision": "talk-00001"}
    made = python_version(folder, MODEL, served=served, warmup={"requests": 0}, requestTimeoutSeconds=TIMEOUT)
    server = WireServer()
    server.start()
    gateway = Gateway(server.url)
    try:
        with running(made.write()) as replica:
            spec = {"runtime": {"requestTimeout": f"{TIMEOUT}s"}}
            for workspace in ("default", "team"):
                server.put(
                    revision("talk", 1, [f"unix:{replica.address}"], workspace, **spec),
                    deployment("talk", workspace, stable="talk-00001", **spec),
                )
            gateway.start_agent()
            server.wait_loaded(server.version, 30)
            made_site = Site(gateway, replica, folder / "model")
            yield made_site
            for connection in made_site.connections:
                connection.close()
    finally:
        gateway.close()
        server.stop()


def event_of(answer: http.client.HTTPResponse) -> Any:
    line = answer.readline()
    assert line.startswith(b"data: "), line
    assert answer.readline() == b"\n"
    return json.loads(line.removeprefix(b"data: "))


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v2/models/talk/generate_stream", {}),
        ("/v2/models/talk/versions/1/generate_stream?a=b", {}),
        ("/ws/team/v2/models/talk/infer", {"accept": "application/json, text/event-stream"}),
    ],
)
def test_events_come_one_by_one_for_longer_than_a_request_may_take(
    site: Site, path: str, headers: dict[str, str]
) -> None:
    site.close_gates()
    site.open_gate(0)
    began = time.monotonic()
    answer = site.ask(path, 4, **headers)
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")
    for number in range(4):
        event = event_of(answer)
        assert event["outputs"][0]["data"] == [number]
        # Behind the next gate the model waits: nothing further can have come before it is opened.
        while time.monotonic() < began + (number + 1) * 0.7 * TIMEOUT:
            time.sleep(0.01)
        site.open_gate(number + 1)
    assert answer.read() == b""
    assert time.monotonic() - began > 2 * TIMEOUT


def test_an_event_that_takes_too_long_ends_its_stream_with_a_reason(site: Site) -> None:
    site.close_gates()
    site.open_gate(0)
    answer = site.ask("/v2/models/talk/generate_stream", 2)
    assert event_of(answer)["outputs"][0]["data"] == [0]
    assert "error" in event_of(answer)
    assert answer.read() == b""
    site.open_gate(1)


def test_other_requests_still_end_with_their_timeout(site: Site) -> None:
    answer = site.ask("/v2/models/talk/infer", 2.5)
    assert answer.status == 504
    answer.read()
    # Not even a client that says so gets more.
    answer = site.ask("/v2/models/talk/infer", 2.5, **{"x-envoy-upstream-rq-timeout-ms": "0"})
    assert answer.status == 504
    answer.read()


def test_what_the_gateway_says_of_the_protocol_is_what_the_replica_says(site: Site) -> None:
    told = site.gateway.get("/v2").json()["extensions"]
    assert told == site.replica.ask("GET", "/v2").json()["extensions"]


def test_clients_of_other_protocols_are_answered_through_the_gateway(site: Site) -> None:
    row, answer = {"x": 0.0}, {"predictions": [0.0]}
    for before in ("", "/ws/team"):
        for path in (
            "/v1/models/talk:predict",
            "/v1/models/talk/versions/1:predict",
            "/v2/models/talk/v1/models/talk:predict",
        ):
            assert site.other(before + path, {"instances": [row]}) == (200, answer), path
        for path in ("/v2/models/talk/invocations", "/v2/models/talk/versions/1/invocations"):
            assert site.other(before + path, {"dataframe_records": [row]})[0] == 200, path
    assert site.other("/v1/models/talk/versions/2:predict", {"instances": [row]})[0] == 404
