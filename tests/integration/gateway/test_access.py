"""Who gets in: tokens, workspaces, and paths that try to get around them. A real Envoy checks."""

import http.client
import json
import socket
import time

import pytest

from tests.integration.gateway.conftest import Gateway, until
from tests.integration.gateway.documents import World, workspace
from tests.integration.gateway.signing import Signer, signed_with_public_key, tampered, unsigned
from tests.integration.gateway.wire_server import WireServer

pytestmark = pytest.mark.integration

PATH = "/v2/models/churn/infer"


@pytest.fixture
def signer(server: WireServer, gateway: Gateway, world: World) -> Signer:
    """Two workspaces with a Deployment of the same name, behind tokens; the agent runs."""
    signer = Signer()
    server.access = signer.access()
    world.deploy("churn", "team")
    server.put(workspace("empty"))
    gateway.start_agent()
    server.wait_loaded(server.version)
    return signer


def _status(gateway: Gateway, path: str, token: str | None) -> int:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return gateway.get(path, headers=headers).status_code


def test_tokens(signer: Signer, gateway: Gateway) -> None:
    good = signer.token()
    assert _status(gateway, PATH, good) == 200
    assert _status(gateway, PATH, None) == 401
    assert _status(gateway, PATH, "not.a.token") == 401
    assert _status(gateway, PATH, signer.token(exp=int(time.time()) - 5)) == 401
    assert _status(gateway, PATH, signer.token(without="exp")) == 401
    assert _status(gateway, PATH, signer.token(iss="somebody")) == 401
    assert _status(gateway, PATH, Signer().token()) == 401
    assert _status(gateway, PATH, unsigned(good)) == 401
    assert _status(gateway, PATH, unsigned(good, "EdDSA")) == 401
    assert _status(gateway, PATH, tampered(good, ws=["*"])) == 401
    assert _status(gateway, PATH, tampered(good, exp=int(time.time()) + 10**6)) == 401
    assert _status(gateway, PATH, signed_with_public_key(signer, good)) == 401
    # Not in the query, where it would end in logs.
    assert _status(gateway, f"{PATH}?access_token={good}", None) == 401


def test_a_token_that_was_checked_expires_all_the_same(signer: Signer, gateway: Gateway) -> None:
    """What a worker remembers of a token is its signature only."""
    token = signer.token(exp=int(time.time()) + 4)
    assert _status(gateway, PATH, token) == 200
    until(lambda: _status(gateway, PATH, token) == 401, seconds=60, pause=0.1)
    # And one that was seen as good lends nothing to another that differs in a character.
    good = signer.token()
    assert [_status(gateway, PATH, good) for _ in range(8)] == [200] * 8
    assert {_status(gateway, PATH, tampered(good, ws=["*"])) for _ in range(8)} == {401}


def test_a_key_that_is_replaced_takes_its_tokens_with_it(
    signer: Signer, gateway: Gateway, server: WireServer
) -> None:
    old = signer.token()
    assert [_status(gateway, PATH, old) for _ in range(8)] == [200] * 8
    successor = Signer()
    server.access = successor.access()
    until(lambda: _status(gateway, PATH, successor.token()) == 200, seconds=60)
    assert {_status(gateway, PATH, old) for _ in range(8)} == {401}


def test_roles_and_workspaces(signer: Signer, gateway: Gateway) -> None:
    for role in ("admin", "edit", "view", "predict"):
        assert _status(gateway, PATH, signer.token(role=role)) == 200
    assert _status(gateway, PATH, signer.token(role="gateway")) == 403
    assert _status(gateway, PATH, signer.token(without="role")) == 403
    assert _status(gateway, PATH, signer.token(ws=[])) == 403
    assert _status(gateway, PATH, signer.token(without="ws")) == 403
    assert _status(gateway, PATH, signer.token(ws="default")) == 403
    assert _status(gateway, PATH, signer.token(ws=["team"])) == 403
    assert _status(gateway, f"/ws/team{PATH}", signer.token()) == 403
    assert _status(gateway, f"/ws/team{PATH}", signer.token(ws=["other", "team"])) == 200
    assert _status(gateway, f"/ws/team{PATH}", signer.token(ws=["*"])) == 200
    # A workspace without deployments is entered by its own tokens, and there is nothing in it.
    assert _status(gateway, f"/ws/empty{PATH}", signer.token(ws=["empty"])) == 404
    assert _status(gateway, f"/ws/empty{PATH}", signer.token()) == 403
    assert _status(gateway, f"/ws/nowhere{PATH}", signer.token()) == 403


def test_answers_are_problems(signer: Signer, gateway: Gateway) -> None:
    missing = gateway.get(PATH, headers={"x-request-id": "mine"})
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.headers["www-authenticate"].startswith("Bearer")
    body = missing.json()
    assert (body["code"], body["status"], body["instance"]) == ("unauthenticated", 401, "mine")
    assert body["type"] == "urn:podium:problem:unauthenticated"
    assert body["error"] == body["detail"] != "", "what clients of the inference protocol show"
    refused = gateway.get(PATH, headers={"authorization": f"Bearer {signer.token(ws=['team'])}"})
    assert refused.headers["content-type"] == "application/problem+json"
    assert (refused.json()["code"], refused.json()["status"]) == ("forbidden", 403)


def test_why_a_good_token_is_refused(signer: Signer, gateway: Gateway) -> None:
    for claims, reason, words in (
        ({"ws": ["team"]}, "workspace", "the token is not for this workspace"),
        ({"ws": []}, "workspace", "the token is not for this workspace"),
        ({"ws": [], "dep": ["default/other"], "can": ["predict", "metadata"]}, "scope", "scope is without"),
        ({"ws": [], "dep": ["default/churn"], "can": ["predict"]}, "scope", "scope is without"),
        ({"role": "gateway"}, "role", "role is none that may"),
        ({"without": "role"}, "role", "role is none that may"),
    ):
        answer = gateway.get(PATH, headers={"authorization": f"Bearer {signer.token(**claims)}"})
        body = answer.json()
        assert (answer.status_code, body["code"], body["reason"]) == (403, "forbidden", reason), claims
        assert words in body["detail"] == body["error"]


def test_why_a_token_is_not_taken(signer: Signer, gateway: Gateway, server: WireServer) -> None:
    now = int(time.time())
    server.access = signer.access("gone")
    gone = signer.token(jti="gone")
    until(lambda: _status(gateway, PATH, gone) == 401, seconds=60)
    fits = "the token is not one of this server, or was changed: its signature does not fit"
    for reason, words, token in (
        ("missing", "no token", None),
        ("expired", "the token has expired", signer.token(exp=now - 5)),
        ("notYetValid", "the token is not valid yet", signer.token(nbf=now + 500)),
        ("malformed", "this is no token: it cannot be read", "not.a.token"),
        ("malformed", "this is no token: it cannot be read", "nothing"),
        ("badSignature", fits, tampered(signer.token(), ws=["*"])),
        ("badSignature", fits, Signer().token()),
        ("badSignature", fits, signer.token(iss="somebody")),
        ("badSignature", fits, signed_with_public_key(signer, signer.token())),
        ("revoked", "the token has been revoked", gone),
    ):
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = gateway.get(PATH, headers=headers)
        body = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
        assert (body["code"], body["reason"], body["detail"]) == ("unauthenticated", reason, words)
        assert "podium token create" in body["nextStep"]
        wanted = "" if token is None else f', error="invalid_token", error_description="{words}"'
        assert answer.headers.get_list("www-authenticate") == [f'Bearer realm="podium"{wanted}']
        assert "Jwt" not in answer.text
    other = gateway.get(PATH, headers={"authorization": "Basic dTpw"})
    assert other.json()["reason"] == "missing"


def test_of_who_may_not_ask_no_body_is_taken_in(signer: Signer, gateway: Gateway, server: WireServer) -> None:
    """With HTTP/1.1 only the end of the connection says that."""
    other = signer.token(ws=["team"])

    def asked(token: str | None, body: bytes | None) -> tuple[int, bool]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        try:
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            connection.request("POST" if body else "GET", PATH, body=body, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, connection.sock is not None
        finally:
            connection.close()

    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {other}\r\ncontent-length: 15000000\r\n\r\n"
        connection.sendall(head.encode() + bytes(5))
        assert connection.recv(1000).startswith(b"HTTP/1.1 403 ")
    assert asked(other, b"{}") == (403, False)
    assert asked(other, None) == (403, True)
    assert asked(None, None) == (401, True)
    assert asked(None, b"{}") == (401, False)


def test_the_gateways_own_answers_need_no_token(signer: Signer, gateway: Gateway) -> None:
    assert gateway.get("/v2").json()["name"] == "podium"
    assert gateway.get("/v2/health/live").json() == {"live": True}
    assert gateway.get("/v2/health/ready").json() == {"ready": True}
    assert gateway.get("/v2/models").status_code == 401


def test_a_replica_never_sees_the_token(signer: Signer, gateway: Gateway) -> None:
    answer = gateway.get(PATH, headers={"authorization": f"Bearer {signer.token()}"})
    assert "authorization" not in answer.json()["headers"]


def test_revoked_at_once_without_cutting_connections(
    signer: Signer, gateway: Gateway, server: WireServer
) -> None:
    mine, other = signer.token(jti="mine"), signer.token(jti="other")
    connections = [http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10) for _ in range(10)]

    def ask(connection: http.client.HTTPConnection, token: str) -> tuple[int, dict[str, object]]:
        connection.request("GET", PATH, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    for connection in connections:
        connection.connect()
        assert ask(connection, mine)[0] == 200
    ports = [connection.sock.getsockname() for connection in connections]
    server.access = signer.access("mine", "somebody")
    probe = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    until(lambda: ask(probe, mine)[0] == 401, seconds=30)
    for connection, port in zip(connections, ports, strict=True):
        status, body = ask(connection, mine)
        assert (status, body["code"], body["detail"]) == (
            401,
            "unauthenticated",
            "the token has been revoked",
        )
        assert ask(connection, other)[0] == 200
        # http.client opens a new socket when the old one was closed: it is still the same.
        assert connection.sock is not None
        assert connection.sock.getsockname() == port
        connection.close()
    probe.close()


def test_rules_that_make_no_sense_change_nothing(
    signer: Signer, gateway: Gateway, server: WireServer
) -> None:
    token = signer.token()
    server.access = {"jwks": {"keys": []}, "issuer": "podium", "tokensRequired": True, "revoked": []}
    until(lambda: "the token rules" in gateway.agent_log())
    assert _status(gateway, PATH, token) == 200
    assert _status(gateway, PATH, None) == 401
    # A key that Envoy itself does not take.
    server.access = signer.access() | {"jwks": {"keys": [signer.jwk | {"x": "!"}]}}
    report = server.wait_report(lambda report: "refused" in report["envoy"]["problem"])
    # Envoy's own words. Routes are not held up by it.
    assert "Jwks" in report["envoy"]["problem"] or "JWKS" in report["envoy"]["problem"]
    server.wait_loaded(server.other_commit())
    assert _status(gateway, PATH, token) == 200
    server.access = signer.access("t1")
    until(lambda: _status(gateway, PATH, token) == 401)


TRICKS = [
    "/v2/models/../../ws/team/v2/models/churn/infer",
    "/v2/models/churn/../../../ws/team/v2/models/churn/infer",
    "/v2/models/%2e%2e/%2e%2e/ws/team/v2/models/churn/infer",
    "/v2/models/..%2f..%2fws/team/v2/models/churn/infer",
    "/v2/models/..%5c..%5cws/team/v2/models/churn/infer",
    "/v2/models\\..\\..\\ws\\team\\v2\\models\\churn\\infer",
    "//ws/team/v2/models/churn/infer",
    "/v2/health/../../ws/team/v2/models/churn/infer",
    "/v2/health/%2e%2e/%2e%2e/ws/team/v2/models/churn/infer",
    "/v2/health/..;/..;/ws/team/v2/models/churn/infer",
    "/ws//team/v2/models/churn/infer",
    "/ws/./team/v2/models/churn/infer",
    "/ws/default/../team/v2/models/churn/infer",
    "/ws/%74eam/v2/models/churn/infer",
    "/ws/team%00/v2/models/churn/infer",
    "/ws/team/v2/models/churn/infer#/v2/models/churn",
    "/WS/team/v2/models/churn/infer",
    "http://other/ws/team/v2/models/churn/infer",
    "/ws/team/v2/models/churn/versions/1/infer",
    "/ws/team/v2/models/churn/versions/1/../../infer",
]


@pytest.mark.parametrize("path", TRICKS)
def test_no_path_leads_into_another_workspace(shared: tuple[Gateway, Signer], path: str) -> None:
    """With a token for `default` only, nothing that a client can write reaches `team`'s replica; and without a token
    nothing reaches any replica. Sent as raw bytes: clients tidy paths up."""
    gateway, signer = shared
    own = f"Authorization: Bearer {signer.token()}\r\n"
    for header in (
        own,
        "",
        own + "x-envoy-original-path: /v2/models/churn\r\n",
        own + "x-original-url: /ws/team/v2/x\r\n",
    ):
        status, answer = _raw(gateway, path, header)
        assert b"team.churn" not in answer, (path, status)
        assert status in (200, 308, 400, 401, 403, 404), (path, status)
        if not header:
            assert status in (308, 400, 401, 403, 404)


def _raw(gateway: Gateway, path: str, headers: str) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: gateway\r\n{headers}\r\n".encode())
        answer = connection.makefile("rb")
        status = int(answer.readline().split(b" ")[1])
        length = 0
        while (line := answer.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, answer.read(length)


@pytest.fixture(scope="module")
def shared():  # type: ignore[no-untyped-def]
    """One gateway with two workspaces for all tricks."""
    server = WireServer()
    server.start()
    gateway = Gateway(server.url)
    try:
        signer = Signer()
        server.access = signer.access()
        world = World(server, gateway)
        world.deploy("churn")
        world.deploy("churn", "team")
        gateway.start_agent()
        server.wait_loaded(server.version, 30)
        assert (
            b"team.churn-00001"
            in _raw(gateway, f"/ws/team{PATH}", f"Authorization: Bearer {signer.token(ws=['team'])}\r\n")[1]
        )
        yield gateway, signer
    finally:
        gateway.close()
        server.stop()
