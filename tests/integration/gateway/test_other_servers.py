"""Paths as servers of the user's choice know them, through a real Envoy: also while two revisions differ in that."""

import http.server
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, deployment, revision, rollout, route
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration

OIP = {"runtime": {"command": ["serve"], "modelName": "forest-v1.2"}}
PLAIN = {"runtime": {"command": ["serve"], "protocol": "http", "readyPath": "/up"}}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Gateway, World, WireServer]]:
    """`named` knows the model by another name, `same` by the Deployment's; `plain` and `chat` speak something else."""
    server = WireServer()
    server.start()
    gateway = Gateway(server.url)
    try:
        world = World(server, gateway)
        world.deploy("named", **OIP)
        world.deploy("same", runtime={"command": ["serve"]})
        world.deploy("plain", **PLAIN)
        world.deploy("chat", "team", runtime={"command": ["serve"], "protocol": "openai"})
        world.deploy("two", replicas=2, **PLAIN)
        world.deploy("gone", **PLAIN)
        world.deploy("gone-oip", runtime={"command": ["serve"], "modelName": "tree"})
        server.put(
            route("spare", {"to": "gone", "fallback": {"deployments": ["plain"]}}),
            route("spare-oip", {"to": "gone-oip", "fallback": {"deployments": ["named"]}}),
            route("pub", {"to": "plain"}),
            route("pub", {"to": "chat"}, workspace="team"),
            route("pub-oip", {"to": "named"}),
        )
        gateway.start_agent()
        server.wait_loaded(server.version, 30)
        yield gateway, world, server
    finally:
        gateway.close()
        server.stop()


@pytest.fixture
def gate(served: tuple[Gateway, World, WireServer]) -> Gateway:
    return served[0]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (
            "/v2/models/named/infer?a=1&b=/v2/models/named",
            "/v2/models/forest-v1.2/infer?a=1&b=/v2/models/named",
        ),
        ("/v2/models/named", "/v2/models/forest-v1.2"),
        ("/v2/models/named?a=1", "/v2/models/forest-v1.2?a=1"),
        ("/v2/models/named/versions/1/infer", "/v2/models/forest-v1.2/infer"),
        ("/v2/models/named/versions/1", "/v2/models/forest-v1.2"),
        ("/v2/models/same/infer", "/v2/models/same/infer"),
        ("/v2/models/same/versions/1/ready", "/v2/models/same/ready"),
        ("/v2/models/plain/v1/things/3?x=%2F", "/v1/things/3?x=%2F"),
        ("/v2/models/plain", "/"),
        ("/v2/models/plain/", "/"),
        ("/v2/models/plain?x=1", "/?x=1"),
        ("/v2/models/plain/versions/1/v1/things", "/v1/things"),
        ("/v2/models/plain/versions/1?x=1", "/?x=1"),
        ("/v2/models/plain/v2/models/other/infer", "/v2/models/other/infer"),
        ("/ws/team/v2/models/chat/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/models/plain:predict", "/v1/models/plain:predict"),
        # Behind a Route a server is asked for what it is called itself.
        ("/v1/models/pub:predict", "/v1/models/plain:predict"),
        ("/v1/models/pub", "/v1/models/plain"),
        ("/v1/models/pub?x=:1", "/v1/models/plain?x=:1"),
        ("/v1/models/pub/metadata", "/v1/models/plain/metadata"),
        ("/ws/team/v1/models/pub:predict", "/v1/models/chat:predict"),
        ("/v2/models/pub/v1/models/other:predict", "/v1/models/other:predict"),
        ("/v2/models/pub/v1/models/-other:predict", "/v1/models/-other:predict"),
        ("/v2/models/pub/v1/things:x/v1/models/-", "/v1/things:x/v1/models/-"),
        ("/v2/models/pub-oip/infer", "/v2/models/forest-v1.2/infer"),
    ],
)
def test_a_path_becomes_the_servers_own(gate: Gateway, path: str, target: str) -> None:
    answer = gate.get(path)
    assert (answer.status_code, answer.json()["target"]) == (200, target)


def test_no_path_leads_past_the_model(gate: Gateway) -> None:
    """A server may have ways to load and unload models; with `oip` only its one model is reachable."""
    for path in (
        "/v2/models/named/../../repository/index",
        "/v2/models/named/%2e%2e/other/infer",
        "/v2/models/named/..%2f..%2frepository/index",
        "/v2/models/named-more/infer",
        "/v2/models/forest-v1.2/infer",
        "/v2/models/named/versions/2/infer",
        "/v2/repository/index",
    ):
        assert gate.get(path).status_code in (400, 404), path


def test_answers_name_their_revision(gate: Gateway) -> None:
    """Also where the server says something else."""
    assert gate.get("/v2/models/named").headers.get_list("x-podium-revision") == ["named-00001"]
    seen = gate.get("/ws/team/v2/models/chat/v1")
    assert seen.json()["revision"] == "team.chat-00001"
    assert seen.headers.get_list("x-podium-revision") == ["chat-00001"]


def test_a_repeated_request_has_the_same_path(gate: Gateway) -> None:
    """One of two replicas refuses connections; what it was asked for goes to the other, rewritten once."""
    gate.replicas["two-00001-0"].send_signal(signal.SIGKILL)
    gate.replicas["two-00001-0"].wait(10)
    for _ in range(20):
        answer = gate.get("/v2/models/two/v1/v2/models/two/x")
        assert (answer.status_code, answer.json()["target"]) == (200, "/v1/v2/models/two/x")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models/spare:predict", "/v1/models/plain:predict"),
        ("/v2/models/spare/v1/things", "/v1/things"),
        ("/v2/models/spare-oip/infer", "/v2/models/forest-v1.2/infer"),
    ],
)
def test_whoever_stands_in_is_asked_by_its_own_path(gate: Gateway, path: str, target: str) -> None:
    """The first attempt has left the path of another server."""
    for name in ("gone-00001-0", "gone-oip-00001-0"):
        gate.replicas[name].send_signal(signal.SIGKILL)
        gate.replicas[name].wait(10)
    for _ in range(5):
        answer = gate.get(path)
        assert (answer.status_code, answer.json()["target"]) == (200, target)


def test_a_canary_between_servers_that_name_things_differently(
    served: tuple[Gateway, World, WireServer],
) -> None:
    gate, world, server = served
    before = world.revision("move")
    after = world.revision("move", number=2, **OIP)
    server.put(before, after, deployment("move", stable="move-00001", rollout="move-1", **OIP))
    server.wait_loaded(server.put(rollout("move", "move-00001", "move-00002", 50)), 30)
    seen = {(answer["revision"], answer["target"]) for answer in (_infer(gate) for _ in range(60))}
    assert seen == {
        ("move-00001", "/v2/models/move/infer"),
        ("move-00002", "/v2/models/forest-v1.2/infer"),
    }


def _infer(gate: Gateway) -> dict[str, str]:
    answer: dict[str, str] = gate.client.post("/v2/models/move/infer", json={}).json()
    return answer


def test_a_replica_behind_a_port(served: tuple[Gateway, World, WireServer]) -> None:
    gate, _, server = served

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as replica:
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{replica.server_address[1]}"
        docs = [revision("ported", 1, [address], **OIP), deployment("ported", stable="ported-00001", **OIP)]
        server.wait_loaded(server.put(*docs), 30)
        assert until(lambda: gate.get("/v2/models/ported/infer").text) == "/v2/models/forest-v1.2/infer"
        replica.shutdown()
