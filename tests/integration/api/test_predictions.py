"""The SDK's predictions against something that speaks the protocol on the wire."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from podium.client import AsyncClient, Client
from podium.resources.errors import Forbidden, InvalidInput, NotFound, PodiumError, Unavailable


class Replica(BaseHTTPRequestHandler):
    """Adds up each row; refuses as the model server does."""

    seen: ClassVar[list[tuple[str, dict[str, Any] | None, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, None, self.headers.get("authorization", "")))
        if "missing" in self.path:
            self.answer(404, {"detail": "there is no deployment missing", "status": 404})
        else:
            inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
            self.answer(200, {"name": "churn", "inputs": inputs, "outputs": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, body, self.headers.get("authorization", "")))
        (given,) = body["inputs"]
        rows, columns = given["shape"]
        if columns != 2:
            self.answer(400, {"error": "expected 2 columns", "field": "inputs[0].shape"})
        elif None in given["data"]:
            self.answer(500, {"error": "ValueError: Input contains NaN"})
        elif 99 in given["data"]:
            self.answer(503, {"error": "draining"})
        elif 98 in given["data"]:
            self.answer(403, {"detail": "not this workspace"})
        else:
            sums = [sum(given["data"][row * 2 : row * 2 + 2]) for row in range(rows)]
            self.answer(
                200,
                {
                    "model_name": "churn",
                    "outputs": [{"name": "y", "datatype": "FP32", "shape": [rows], "data": sums}],
                },
            )

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    Replica.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_lists_go_out_as_the_models_own_datatypes(gateway: str) -> None:
    with Client("http://127.0.0.1:9", "tok", gateway=gateway) as podium:
        answer = podium.predict("churn", {"x": [[1, 2], [3, 4]]})
    assert answer["outputs"][0]["data"] == [3, 7]
    (first, _, authorization), (second, body, _) = Replica.seen
    assert (first, second) == ("/v2/models/churn", "/v2/models/churn/infer")
    assert authorization == "Bearer tok"
    assert body == {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


def test_whole_tensors_and_other_workspaces(gateway: str) -> None:
    async def run() -> dict[str, Any]:
        async with AsyncClient("http://127.0.0.1:9", "tok", gateway=gateway) as podium:
            tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [5, 6]}
            return await podium.predict("churn", [tensor], workspace="team")

    assert asyncio.run(run())["outputs"][0]["data"] == [11]
    assert [path for path, _, _ in Replica.seen] == ["/ws/team/v2/models/churn/infer"]


@pytest.mark.parametrize(
    ("rows", "kind", "words"),
    [
        ([[1, 2, 3]], InvalidInput, "expected 2 columns"),
        ([[1, None]], PodiumError, "Input contains NaN"),
        ([[1, 99]], Unavailable, "draining"),
        ([[1, 98]], Forbidden, "not this workspace"),
    ],
)
def test_refusals_are_errors_of_ours(gateway: str, rows: Any, kind: type[PodiumError], words: str) -> None:
    with Client("http://127.0.0.1:9", "tok", gateway=gateway) as podium:
        with pytest.raises(kind, match=words) as caught:
            podium.predict("churn", {"x": rows})
        if isinstance(caught.value, InvalidInput):
            assert caught.value.issues[0].field == "inputs[0].shape"
        with pytest.raises(NotFound, match="no deployment missing"):
            podium.predict("missing", {"x": [[1, 2]]})
        with pytest.raises(InvalidInput, match="known: x"):
            podium.predict("churn", {"z": [[1, 2]]})


def test_without_a_gateway_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PODIUM_GATEWAY_URL", raising=False)
    with (
        Client("http://127.0.0.1:9", "tok") as podium,
        pytest.raises(InvalidInput, match="no gateway is known"),
    ):
        podium.predict("churn", {"x": [[1, 2]]})
