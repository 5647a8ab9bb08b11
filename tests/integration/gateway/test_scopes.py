"""Tokens with a scope: which deployments, which verbs, however the path is written. A real Envoy checks."""

import datetime
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World
from tests.integration.gateway.load import Load
from tests.integration.gateway.signing import Signer
from tests.integration.gateway.test_access import TRICKS, _raw
from tests.integration.gateway.wire_server import WireServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

BOTH = ["predict", "metadata"]


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Gateway, Signer, WireServer]]:
    """Two deployments in `default`, one of the same name in `team`."""
    server = WireServer()
    server.start()
    gateway = Gateway(server.url)
    try:
        signer = Signer()
        server.access = signer.access()
        world = World(server, gateway)
        world.deploy("churn")
        world.deploy("fraud")
        world.deploy("churn", "team")
        gateway.start_agent()
        server.wait_loaded(server.version, 60)
        yield gateway, signer, server
    finally:
        gateway.close()
        server.stop()


def scoped(signer: Signer, *names: str, can: list[str] | None = None, **claims: Any) -> str:
    """As the server makes one: for no workspace, and with the names."""
    return signer.token(ws=[], dep=list(names), can=BOTH if can is None else can, **claims)


def status(gateway: Gateway, path: str, token: str, method: str = "GET") -> int:
    return gateway.client.request(method, path, headers={"authorization": f"Bearer {token}"}).status_code


SPELLINGS = (
    "/v2/models/{0}", "/v2/models/{0}/infer", "/v2/models/{0}/ready", "/v2/models/{0}/versions/1/infer",
    "/v2/models/{0}/invocations", "/v1/models/{0}:predict", "/v1/models/{0}/versions/1:predict", "/v1/models/{0}",
    "/v2/models/{0}?x=1", "/v2/models/{0}/infer?/v2/models/other", "/v2//models///{0}/infer",
    "/v2/models/other/../{0}/infer", "/v2/models/%{1:x}{2}/infer",
)  # fmt: skip


def paths(name: str) -> list[str]:
    return [spelling.format(name, ord(name[0]), name[1:]) for spelling in SPELLINGS]


def test_only_what_the_scope_names(place: tuple[Gateway, Signer, WireServer]) -> None:
    gateway, signer, _ = place
    token = scoped(signer, "default/churn")
    for path in paths("churn"):
        assert status(gateway, path, token, "POST") in (200, 404), path
        assert status(gateway, path, token, "GET") in (200, 404), path
        assert status(gateway, f"/ws/team{path}", token) == 403, path
    assert status(gateway, "/v2/models/churn/infer", token, "POST") == 200
    for path in (*paths("fraud"), *paths("churn2"), *paths("chur"), "/v2/models", "/v2/models/", "/x"):
        assert status(gateway, path, token) == 403, path
    # What needs no token needs none with one either, and the old address of the workspace still says the new one.
    assert status(gateway, "/v2/health/ready", token) == 200
    assert status(gateway, "/ws/default/v2/models/churn/infer", token) == 308


def test_scopes_in_several_workspaces(place: tuple[Gateway, Signer, WireServer]) -> None:
    gateway, signer, _ = place
    token = scoped(signer, "team/churn", "default/fraud")
    assert status(gateway, "/ws/team/v2/models/churn/infer", token) == 200
    assert status(gateway, "/v2/models/fraud/infer", token) == 200
    assert status(gateway, "/v2/models/churn/infer", token) == 403
    everything = scoped(signer, "team/*")
    assert status(gateway, "/ws/team/v2/models/churn/infer", everything) == 200
    assert status(gateway, "/ws/team/v2/models/nobody/infer", everything) == 404
    assert status(gateway, "/v2/models/churn/infer", everything) == 403
    assert status(gateway, "/ws/team", everything) == 403
    anywhere = scoped(signer, "*", can=["metadata"])
    for path in ("/ws/team/v2/models/churn", "/v2/models/fraud"):
        assert status(gateway, path, anywhere) == 200
        assert status(gateway, path, anywhere, "POST") == 403


def test_verbs(place: tuple[Gateway, Signer, WireServer]) -> None:
    gateway, signer, _ = place
    reads = scoped(signer, "default/churn", can=["metadata"])
    asks = scoped(signer, "default/churn", can=["predict"])
    for path in paths("churn"):
        for method in ("GET", "HEAD"):
            assert status(gateway, path, reads, method) in (200, 404), path
            assert status(gateway, path, asks, method) == 403, path
        for method in ("POST", "PUT", "OPTIONS", "PATCH", "DELETE"):
            assert status(gateway, path, reads, method) == 403, path
            assert status(gateway, path, asks, method) in (200, 404), path
    neither = scoped(signer, "default/churn", can=[])
    assert status(gateway, "/v2/models/churn", neither) == 403
    assert status(gateway, "/v2/models/churn", scoped(signer, "default/churn", can=["*"])) == 403


def test_calls_of_grpc(place: tuple[Gateway, Signer, WireServer]) -> None:
    """What says which deployment a call is for is a header or the authority; which verb it is, its name."""
    gateway, signer, _ = place

    def refused(token: str, method: str, where: dict[str, str]) -> bool:
        headers = {
            "host": "gateway",
            "content-type": "application/grpc",
            "authorization": f"Bearer {token}",
        } | where
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        # HTTP/1.1 is enough: what makes it a call is its type. One connection each, since the answer has trailers.
        request = (
            f"POST /inference.GRPCInferenceService/{method} HTTP/1.1\r\n{lines}content-length: 5\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
            connection.sendall(request.encode() + bytes(5))
            head = b""
            while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
                head += more
        return b"grpc-status: 7\r\n" in head

    both = scoped(signer, "default/churn", "team/churn")
    reads = scoped(signer, "default/churn", can=["metadata"])
    asks = scoped(signer, "default/churn", can=["predict"])
    for where in ({"podium-deployment": "churn"}, {"host": "churn.default.example:80"}):
        for method in ("ModelInfer", "ModelMetadata", "ModelReady", "ServerLive"):
            assert not refused(both, method, where)
            assert refused(reads, method, where) is (method == "ModelInfer")
            assert refused(asks, method, where) is (method != "ModelInfer")
    for where in ({"podium-deployment": "fraud"}, {"host": "fraud"}, {"podium-deployment": "blue/churn"}):
        assert refused(both, "ModelInfer", where)
        assert refused(reads, "ModelMetadata", where)
    assert not refused(both, "ModelInfer", {"podium-deployment": "team/churn"})
    assert refused(asks, "ModelInfer", {"podium-deployment": "team/churn"})


def test_claims_that_make_no_sense_open_nothing(place: tuple[Gateway, Signer, WireServer]) -> None:
    gateway, signer, _ = place
    for odd in (
        [],
        "default/churn",
        [["default/churn"]],
        {"default/churn": 1},
        None,
        7,
        [""],
        ["/"],
        ["**"],
        ["*/*"],
    ):
        token = signer.token(ws=[], dep=odd, can=BOTH)
        if not isinstance(odd, dict):
            assert status(gateway, "/v2/models/churn/infer", token) == 403, odd
        assert status(gateway, "/v2/models/fraud/infer", token) == 403, odd
    assert status(gateway, "/v2/models/churn", signer.token(ws=[], dep=["default/churn"])) == 403
    assert status(gateway, "/v2/models/churn", scoped(signer, "default/churn", role="gateway")) == 403
    # A path that is no deployment's is noted as it is: no scope can be such a path.
    for path in ("/v2/models", "/nothing"):
        assert status(gateway, path, scoped(signer, path)) in (403, 404)


def test_a_token_without_a_scope_is_as_it_was(place: tuple[Gateway, Signer, WireServer]) -> None:
    gateway, signer, _ = place
    for name in ("churn", "fraud"):
        for method in ("GET", "POST"):
            assert status(gateway, f"/v2/models/{name}/infer", signer.token(), method) == 200
    assert status(gateway, "/ws/team/v2/models/churn/infer", signer.token()) == 403


@pytest.mark.parametrize("path", TRICKS)
def test_no_path_leads_out_of_a_scope(place: tuple[Gateway, Signer, WireServer], path: str) -> None:
    gateway, signer, _ = place
    header = f"Authorization: Bearer {scoped(signer, 'default/churn')}\r\n"
    for more in ("", "x-envoy-original-path: /v2/models/churn\r\n", "podium-deployment: churn\r\n"):
        found, answer = _raw(gateway, path, header + more)
        assert b"team.churn" not in answer, (path, found)
        assert b"fraud" not in answer
        found, answer = _raw(
            gateway, path.replace("/team", "/default").replace("churn", "fraud"), header + more
        )
        assert b"fraud-00001" not in answer, (path, found)


def test_a_rotated_token_ends_at_its_time_without_server_and_agent(
    place: tuple[Gateway, Signer, WireServer],
) -> None:
    gateway, signer, server = place
    old, other = signer.token(jti="old"), signer.token(jti="other")
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    server.access = signer.access() | {"retiring": [{"id": "old", "at": at.isoformat()}]}
    until(
        lambda: b"revoked since old" in gateway.settings.layout.document("revoked").read_bytes(), seconds=60
    )
    agent = gateway.agent
    assert agent is not None
    agent.kill()
    agent.wait(20)
    server.stop()
    try:
        while time.time() < at.timestamp() - 2:
            assert status(gateway, "/v2/models/churn", old) == 200
            time.sleep(0.05)
        until(lambda: status(gateway, "/v2/models/churn", old) == 401, seconds=60)
        refused = gateway.get("/v2/models/churn", headers={"authorization": f"Bearer {old}"})
        assert refused.json()["detail"] == "the token has been revoked"
        assert status(gateway, "/v2/models/churn", other) == 200
    finally:
        server.start()
        gateway.start_agent()


def test_rotation_under_load(place: tuple[Gateway, Signer, WireServer]) -> None:
    """No request fails for whoever changes to the new token within the overlap."""
    gateway, signer, server = place
    old, new = signer.token(jti="under-load-1"), signer.token(jti="under-load-2")
    begun, at = time.monotonic(), datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)
    with Load(gateway.port, rate=200, headers=f"authorization: Bearer {old}\r\n") as before:
        before.wait_more(50, 60)
        server.access = signer.access() | {"retiring": [{"id": "under-load-1", "at": at.isoformat()}]}
        with Load(gateway.port, rate=200, headers=f"authorization: Bearer {new}\r\n") as after:
            after.wait_more(100, 60)
            until(lambda: status(gateway, "/v2/models/churn", old) == 401, seconds=60)
            after.wait_more(100, 60)
    assert not after.failures, after.failures[:3]
    # The clocks of Envoy and of this test are one, but it takes a request a moment to get there.
    assert not [failure for failure in before.failures if failure[0] < begun + 6]
    assert before.failures, "the old one has ended"
    server.access = signer.access()


def test_retiring_tokens_that_make_no_sense_change_nothing(
    place: tuple[Gateway, Signer, WireServer],
) -> None:
    gateway, signer, server = place
    for odd in (
        [{"id": "x"}],
        "x",
        [{"id": "x", "at": "tomorrow"}],
        [{"id": "x", "at": "2030-01-01T00:00:00"}],
    ):
        seen = gateway.agent_log().count("retiring")
        server.access = signer.access() | {"retiring": odd}
        until(lambda before=seen: gateway.agent_log().count("retiring") > before, seconds=60)
        assert status(gateway, "/v2/models/churn", signer.token()) == 200
    server.access = signer.access()
