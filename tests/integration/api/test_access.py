"""Every operation of the OpenAPI document x every role x another workspace's objects."""

import base64
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from podium.api.bootstrap import bootstrap
from podium.api.tokens import TokenAuthority
from podium.resources.errors import Refused
from tests.integration.api.conftest import push_versions
from tests.integration.api.server import TESTER, ApiServer, deployment, model, serving, workspace

OPEN = {"isAlive", "isReady", "getMetrics", "listSchemas", "getSchema"}
GATEWAY = {"watch", "getGatewayConfig", "reportGateway"}
ADMINS = {
    "createToken",
    "listTokens",
    "getToken",
    "rotateToken",
    "revokeToken",
    "deleteWorkspace",
    "forgetGateway",
}
"""deleteWorkspace asks for a writer first, and then for an admin."""
BODIES: dict[str, Any] = {
    "apply": model("m", workspace="red"),
    "steerRollout": {"action": "pause"},
    "rollBack": {},
    "pushVersion": {"files": [{"path": "a", "size": 0, "sha256": "0" * 64}]},
    "importVersion": {"uri": "models:/a/1"},
    "setAlias": {"version": "1"},
    "createToken": {"subject": "x", "role": "view"},
    "rotateToken": {},
    "reportGateway": {"observedVersion": 1},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with serving(tmp_path_factory.mktemp("api")) as running:
        for name in ("red", "blue"):
            running.create(workspace(name))
        push_versions(running, "red")
        running.create(deployment("churn", workspace="red"))
        yield running


def operations(server: ApiServer) -> list[tuple[str, str, str]]:
    """(operationId, method, path with everything filled in, in the workspace `red`)."""
    found = []
    fill = {
        "workspace": "red", "name": "churn", "alias": "champion", "sha256": "0" * 64, "token_id": "x", "kind": "Model",
        "version": "1",
    }  # fmt: skip
    for path, methods in server.app.openapi()["paths"].items():
        found += [
            (operation["operationId"], method.upper(), path.format(**fill))
            for method, operation in methods.items()
        ]
    assert len(found) > 40
    return found


def ask(server: ApiServer, operation: tuple[str, str, str], token: str | None) -> httpx.Response:
    name, method, path = operation
    http = server.bare()
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    if name == "watch":
        with http.stream(method, path, headers=headers) as response:
            if response.status_code != 200:
                response.read()
            return response
    return http.request(method, path, headers=headers, json=BODIES.get(name))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def bad_tokens(server: ApiServer) -> dict[str, str]:
    """Name of the trick -> token."""
    good = server.token("admin", "*")
    claims = jwt.decode(good, options={"verify_signature": False})
    header, payload, signature = good.split(".")
    stranger = TokenAuthority(Ed25519PrivateKey.generate())
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    key = server.tokens.jwks()["keys"][0]["x"]
    return {
        "nothing in it": "x",
        "three dots": "a.b.c",
        "another key": stranger.issue("admin", "admin", ("*",), hour, now)[0],
        "alg none": f"{b64(json.dumps({'alg': 'none', 'typ': 'JWT'}).encode())}.{payload}.",
        "alg HS256 with the public key": jwt.encode(claims, key + "=" * 20, algorithm="HS256"),
        "not on record": server.tokens.issue("admin", "admin", ("*",), hour, now)[0],
        "expired": server.token("admin", "*", lifetime=-60),
        "another payload": f"{header}.{b64(json.dumps({**claims, 'sub': 'root'}).encode())}.{signature}",
        "no expiry": jwt.encode(
            {k: v for k, v in claims.items() if k != "exp"}, server.tokens._key, algorithm="EdDSA"
        ),
        "another issuer": jwt.encode({**claims, "iss": "x"}, server.tokens._key, algorithm="EdDSA"),
        "a role that is none": jwt.encode({**claims, "role": "root"}, server.tokens._key, algorithm="EdDSA"),
        "too long": "a" * 20_000,
    }


def test_nothing_without_a_token(server: ApiServer) -> None:
    for operation in operations(server):
        answer = ask(server, operation, None)
        if operation[0] in OPEN:
            assert answer.status_code == 200, operation
        else:
            assert answer.status_code == 401, operation
            assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "name", ["nothing in it", "three dots", "another key", "alg none", "alg HS256 with the public key",
             "not on record", "expired", "another payload", "no expiry", "another issuer", "a role that is none",
             "too long"],
)  # fmt: skip
def test_bad_tokens(server: ApiServer, name: str) -> None:
    token = bad_tokens(server)[name]
    for operation in (("listDeployments", "GET", "/api/v1/deployments"), ("apply", "POST", "/api/v1/apply")):
        answer = ask(server, operation, token)
        assert answer.status_code == 401, answer.text
        assert answer.json()["code"] == "unauthenticated"
        assert token[:200] not in answer.text or name in ("nothing in it",)


def test_two_authorization_headers_are_refused(server: ApiServer) -> None:
    header = ("authorization", f"Bearer {server.admin_token}")
    assert server.bare().get("/api/v1/models", headers=[header, header]).status_code == 401


def test_predict_may_do_nothing_here(server: ApiServer) -> None:
    token = server.token("predict", "*")
    for operation in operations(server):
        if operation[0] not in OPEN:
            assert ask(server, operation, token).status_code == 403, operation


def test_gateway_reads_objects_and_reports(server: ApiServer) -> None:
    token = server.token("gateway", "*")
    for operation in operations(server):
        name, method, _ = operation
        if name in OPEN:
            continue
        answer = ask(server, operation, token)
        about_objects = name.startswith(("list", "get")) and answer.headers.get("content-type") != "x"
        allowed = name in GATEWAY or (
            method == "GET"
            and about_objects
            and name
            not in {
                "listTokens",
                "getToken",
                "listEvents",
                "listAudit",
                "listSamples",
                "listAliasHistory",
                "getBlob",
                "listGateways",
                "getProfile",
                "getAllComparisons",
                "getComparisons",
            }
        )
        assert (answer.status_code == 403) is not allowed, (operation, answer.status_code)


def test_view_writes_nothing(server: ApiServer) -> None:
    token = server.token("view", "*")
    for operation in operations(server):
        name, method, _ = operation
        if name in OPEN:
            continue
        asks = method == "GET" or name == "testRoute"
        refused = not asks or name in ADMINS or name in {"getGatewayConfig", "getBlob"}
        assert (ask(server, operation, token).status_code == 403) is refused, operation


def test_edit_is_no_admin(server: ApiServer) -> None:
    token = server.token("edit", "*")
    for operation in operations(server):
        if operation[0] in ADMINS | {"getGatewayConfig", "reportGateway"}:
            assert ask(server, operation, token).status_code == 403, operation
    http = server.http(token)
    assert http.post("/api/v1/apply", json=workspace("mine")).status_code == 403


@pytest.mark.parametrize("role", ["view", "edit"])
def test_another_workspace_is_closed_whether_the_object_exists_or_not(server: ApiServer, role: Any) -> None:
    token = server.token(role, "blue")
    for name, method, path in operations(server):
        if "/workspaces/red" in path or name == "apply":
            for place in (path, path.replace("churn", "nothing")):
                answer = ask(server, (name, method, place), token)
                assert answer.status_code == 403, (name, place, answer.status_code)


def test_lists_show_what_the_token_covers(server: ApiServer) -> None:
    server.create(model("b", workspace="blue"))
    admin, blue, both = (
        server.http(token)
        for token in (None, server.token("view", "blue"), server.token("view", "blue", "red"))
    )

    def names(http: httpx.Client, path: str) -> list[str]:
        items = http.get(path).json()["items"]
        return [f"{item['metadata']['workspace']}/{item['metadata']['name']}" for item in items]

    assert names(admin, "/api/v1/models") == ["blue/b", "red/churn"]
    assert names(blue, "/api/v1/models") == ["blue/b"]
    assert names(blue, "/api/v1/deployments") == []
    assert [name.partition("/")[2] for name in names(blue, "/api/v1/workspaces")] == ["blue"]
    assert names(both, "/api/v1/models?limit=1") == ["blue/b"]
    cursor = both.get("/api/v1/models?limit=1").json()["continue"]
    rest = both.get("/api/v1/models", params={"limit": 1, "continue": cursor}).json()
    assert [item["metadata"]["name"] for item in rest["items"]] == ["churn"]
    for path in ("/api/v1/audit?limit=1000", "/api/v1/events?limit=1000"):
        assert {row["workspace"] for row in blue.get(path).json()["items"]} <= {"blue"}
    assert "Token" not in blue.get("/api/v1/audit?limit=1000").text
    everywhere = server.http(server.token("view", "*"))
    assert "Token" not in everywhere.get("/api/v1/audit?limit=1000").text
    assert "Token" in admin.get("/api/v1/audit?limit=1000").text


def test_a_cursor_leads_into_no_other_workspace(server: ApiServer) -> None:
    """A page token of one caller, changed by hand, shows another nothing that is not theirs."""
    blue = server.http(server.token("view", "blue"))
    for cursor in ("0:red:", "0:a:", "0:blue:WzAsInJlZCIsIiJd", "9:zzz:x", ":::", "1:red:1:2"):
        answer = blue.get("/api/v1/models", params={"continue": cursor})
        assert answer.status_code in (200, 422), answer.text
        assert "churn" not in answer.text


def test_the_token_is_in_no_row_and_no_list(server: ApiServer) -> None:
    http = server.http()
    issued = http.post("/api/v1/tokens", json={"subject": "s", "role": "predict", "workspaces": ["red"]})
    assert issued.status_code == 201
    token = issued.json()["token"]
    for path in ("/api/v1/tokens", "/api/v1/audit?limit=1000", "/api/v1/events", "/metrics"):
        assert token.split(".")[2] not in http.get(path).text
    stored = b"".join(file.read_bytes() for file in server.home.glob("podium.db*"))
    assert token.split(".")[2].encode() not in stored


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"subject": "x", "role": "root"}, "role"),
        ({"subject": "x y", "role": "view"}, "subject"),
        ({"subject": "x", "role": "view", "workspaces": ["nowhere"]}, "workspaces[0]"),
        ({"subject": "x", "role": "view", "workspaces": ["*", "red"]}, "workspaces"),
        ({"subject": "x", "role": "admin", "workspaces": ["red"]}, "workspaces"),
        ({"subject": "x", "role": "view", "lifetime": "1000d"}, "lifetime"),
        ({"subject": "x", "role": "view", "admin": True}, "admin"),
    ],
)
def test_tokens_that_are_not_made(server: ApiServer, body: dict[str, Any], field: str) -> None:
    answer = server.http().post("/api/v1/tokens", json=body)
    assert answer.status_code == 422
    assert answer.json()["issues"][0]["field"] == field


def test_a_revoked_token_is_refused_at_once_and_listed_for_gateways(server: ApiServer) -> None:
    admin = server.http()
    issued = admin.post(
        "/api/v1/tokens", json={"subject": "gone", "role": "view", "workspaces": ["*"]}
    ).json()
    http = server.http(issued["token"])
    assert http.get("/api/v1/models").status_code == 200
    assert admin.delete(f"/api/v1/tokens/{issued['info']['id']}").status_code == 200
    assert http.get("/api/v1/models").status_code == 401
    config = (
        server.http((server.home / "gateway.token").read_text().strip()).get("/api/v1/gateway/config").json()
    )
    assert issued["info"]["id"] in config["revoked"]


def test_bootstrap_keeps_what_is_good_and_replaces_what_is_not(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        files = {
            "key_file": tmp_path / "key.pem",
            "admin_token_file": tmp_path / "admin.token",
            "gateway_token_file": tmp_path / "gateway.token",
        }
        for file in files.values():
            assert file.stat().st_mode & 0o777 == 0o600
        first = server.admin_token
        bootstrap(server.store, **files)
        assert server.admin_token == first
        with server.store.write(TESTER) as tx:
            tx.revoke_token(jwt.decode(first, options={"verify_signature": False})["jti"])
        bootstrap(server.store, **files)
        assert server.admin_token != first
        assert server.http().get("/api/v1/tokens").status_code == 200
        files["key_file"].chmod(0o644)
        with pytest.raises(Refused, match="read by others"):
            bootstrap(server.store, **files)


def test_an_expired_token_stops_working_while_the_server_runs(server: ApiServer) -> None:
    token = server.token("view", "*", lifetime=1)
    http = server.http(token)
    deadline = time.monotonic() + 15
    while http.get("/api/v1/models").status_code != 401:
        assert time.monotonic() < deadline, "it still works"
        time.sleep(0.1)
