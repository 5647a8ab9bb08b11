"""`podium predict` and `logs --follow`: the request on the wire, the answer for people."""

import http.server
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.api.server import ApiServer, deployment
from tests.integration.cli.conftest import Podium


@dataclass
class Gateway:
    """Answers as Envoy and a model server do, and keeps what it was asked."""

    url: str = ""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    status: int = 200
    answer: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def gateway(podium: Podium, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    state = Gateway(inputs=[{"name": "x", "datatype": "FP64", "shape": [-1, 3]}])
    state.answer = {"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [7]}]}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(200, {"name": "churn", "inputs": state.inputs})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.asked.append((self.path, self.headers.get("authorization", ""), body))
            self._say(state.status, state.answer)

        def _say(self, status: int, document: Any) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("PODIUM_GATEWAY_URL", state.url)
        yield state
        server.shutdown()
        thread.join(10)


def test_a_row_becomes_the_one_matrix_that_the_model_takes(podium: Podium, gateway: Gateway) -> None:
    assert podium("predict", "churn", "--row", "1,2,null").out == "y\n7\n"
    [(path, authorization, body)] = gateway.asked
    assert path == "/v2/models/churn/infer"
    assert authorization.startswith("Bearer ")
    assert body["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, None]}]


def test_rows_become_a_column_for_each_input(podium: Podium, gateway: Gateway) -> None:
    gateway.inputs = [
        {"name": "age", "datatype": "INT64", "shape": [-1]},
        {"name": "plan", "datatype": "BYTES", "shape": [-1, 1]},
    ]
    podium("predict", "churn", "-w", "team-a", "--row", "30,basic", "--row", '40,"a,b"')
    [(path, _, body)] = gateway.asked
    assert path == "/ws/team-a/v2/models/churn/infer"
    assert body["inputs"] == [
        {"name": "age", "datatype": "INT64", "shape": [2], "data": [30, 40]},
        {"name": "plan", "datatype": "BYTES", "shape": [2, 1], "data": ["basic", "a,b"]},
    ]


def test_data_in_all_its_forms(podium: Podium, gateway: Gateway) -> None:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, None]}
    for text in ("[[1, 2, null]]", '{"x": [[1, 2, NaN]]}', json.dumps({"inputs": [tensor]})):
        assert podium("predict", "churn", "--data", text, "-o", "json").json() == gateway.answer
        podium("predict", "churn", "--file", "-", stdin=text)
    assert all(body["inputs"] == [tensor] for _, _, body in gateway.asked)
    assert len(gateway.asked) == 6


def test_what_is_wrong_is_named(podium: Podium, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--data: expected JSON: " in podium("predict", "churn", "--data", "{", code=1).err
    assert "nosuch.json: no such file" in podium("predict", "churn", "--file", "nosuch.json", code=1).err
    assert (
        "expected 2 values as in the first row, got 1"
        in podium("predict", "churn", "--row", "1,2", "--row", "1", code=1).err
    )
    assert "no such input; known: x" in podium("predict", "churn", "--data", '{"z": [1]}', code=1).err
    assert "JSON knows no infinity" in podium("predict", "churn", "--row", "1,Infinity,2", code=1).err
    assert gateway.asked == []
    gateway.status, gateway.answer = 400, {"error": "expected [-1, 3]", "field": "inputs[0].shape"}
    assert (
        podium("predict", "churn", "--row", "1,2,3", code=1).err
        == "Error: inputs[0].shape: expected [-1, 3]\n"
    )
    gateway.status, gateway.answer = 500, {"error": "ValueError: no"}
    assert podium("predict", "churn", "--row", "1,2,3", code=1).err == "Error: ValueError: no\n"
    monkeypatch.delenv("PODIUM_GATEWAY_URL")
    assert "PODIUM_GATEWAY_URL" in podium("predict", "churn", "--row", "1,2,3", code=1).err


def test_logs_go_on_until_ctrl_c(podium: Podium, churn: ApiServer) -> None:
    podium("apply", "-f", "-", stdin=json.dumps(deployment("churn")))
    churn.logs.written["default", "churn"] = {"r-1": ["one"]}
    with subprocess.Popen(
        [sys.executable, "-m", "podium.cli", "logs", "churn", "-f"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "r-1 one\n"
            churn.logs.written["default", "churn"] = {"r-1": ["one", "two"], "r-2": ["new"]}
            assert {process.stdout.readline(), process.stdout.readline()} == {"r-1 two\n", "r-2 new\n"}
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
