"""Tokens with scopes, and tokens that take the place of others, over the API."""

import datetime
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from podium.client import Client
from podium.resources.errors import NotFound, Refused
from tests.integration.api.conftest import push_versions
from tests.integration.api.server import ApiServer, deployment, serving, workspace


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with serving(tmp_path_factory.mktemp("api")) as running:
        for name in ("red", "blue"):
            running.create(workspace(name))
            push_versions(running, name)
            running.create(deployment("churn", workspace=name))
        running.create(deployment("fraud", workspace="red"))
        yield running


def made(server: ApiServer, **wanted: Any) -> dict[str, Any]:
    answer = server.http().post("/api/v1/tokens", json={"subject": "job", "role": "predict", **wanted})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def claims(issued: dict[str, Any]) -> dict[str, Any]:
    return dict(jwt.decode(issued["token"], options={"verify_signature": False}))


def gateway_config(server: ApiServer) -> dict[str, Any]:
    token = (server.home / "gateway.token").read_text().strip()
    return dict(server.http(token).get("/api/v1/gateway/config").json())


@pytest.mark.parametrize(
    ("wanted", "names", "verbs"),
    [
        ({"workspaces": ["red"], "deployments": ["churn"]}, ["red/churn"], ["predict", "metadata"]),
        ({"workspaces": ["red", "blue"], "deployments": ["churn"]}, ["red/churn", "blue/churn"], None),
        ({"workspaces": ["red", "blue"], "deployments": ["fraud", "blue/churn"]}, ["red/fraud", "blue/churn"], None),
        ({"workspaces": ["*"], "deployments": ["red/fraud", "red/fraud"]}, ["red/fraud"], None),
        ({"workspaces": ["red"], "verbs": ["metadata"]}, ["red/*"], ["metadata"]),
        ({"workspaces": ["*"], "verbs": ["metadata", "predict"]}, ["*"], ["predict", "metadata"]),
    ],
)  # fmt: skip
def test_a_scope_is_in_the_token_and_on_record(
    server: ApiServer, wanted: dict[str, Any], names: list[str], verbs: list[str] | None
) -> None:
    issued = made(server, **wanted)
    said = claims(issued)
    verbs = verbs or ["predict", "metadata"]
    assert (said["dep"], said["can"]) == (names, verbs)
    # A gateway that knows no scopes finds a token that is for nothing.
    assert said["ws"] == []
    info = server.http().get(f"/api/v1/tokens/{issued['info']['id']}").json()
    assert info == issued["info"]
    assert (info["deployments"], info["verbs"], info["workspaces"]) == (names, verbs, wanted["workspaces"])
    assert server.http(issued["token"]).get("/api/v1/models").status_code == 403


def test_a_token_without_a_scope_says_what_it_always_said(server: ApiServer) -> None:
    said = claims(made(server, workspaces=["red"]))
    assert set(said) == {"iss", "sub", "jti", "iat", "exp", "role", "ws"}
    assert said["ws"] == ["red"]


@pytest.mark.parametrize(
    ("wanted", "field", "words"),
    [
        ({"role": "edit", "deployments": ["churn"]}, "deployments", "role predict"),
        ({"role": "view", "verbs": ["metadata"]}, "verbs", "role predict"),
        (
            {"workspaces": ["red"], "deployments": ["chrun"]},
            "deployments[0]",
            "no deployment or route chrun in red",
        ),
        ({"workspaces": ["blue"], "deployments": ["churn", "fraud"]}, "deployments[1]", "in blue"),
        ({"workspaces": ["blue"], "deployments": ["red/churn"]}, "deployments[0]", "none of the token's"),
        ({"workspaces": ["*"], "deployments": ["churn"]}, "deployments[0]", "WORKSPACE/churn"),
        ({"workspaces": ["red"], "deployments": []}, "deployments", ""),
        ({"workspaces": ["red"], "deployments": ["red/*"]}, "deployments[0]", ""),
        ({"workspaces": ["red"], "deployments": ["../churn"]}, "deployments[0]", ""),
        ({"workspaces": ["red"], "verbs": ["delete"]}, "verbs[0]", ""),
        ({"workspaces": ["red"], "verbs": []}, "verbs", ""),
    ],
)
def test_scopes_that_are_refused(server: ApiServer, wanted: dict[str, Any], field: str, words: str) -> None:
    before = len(server.http().get("/api/v1/tokens").json()["items"])
    answer = server.http().post("/api/v1/tokens", json={"subject": "job", "role": "predict", **wanted})
    assert answer.status_code == 422, answer.text
    [issue] = answer.json()["issues"]
    assert issue["field"] == field
    assert words in issue["message"]
    assert len(server.http().get("/api/v1/tokens").json()["items"]) == before


def test_claims_are_in_the_token_apart_from_ours_and_kept_through_rotation(server: ApiServer) -> None:
    given = {"user": "u-17", "tier": "gold"}
    issued = made(server, workspaces=["red"], claims=given)
    said = claims(issued)
    assert (said["claims"], said["claimed"]) == (given, "tier=gold;user=u-17")
    assert set(said) == {"iss", "sub", "jti", "iat", "exp", "role", "ws", "claims", "claimed"}
    listed = next(
        row
        for row in server.http().get("/api/v1/tokens").json()["items"]
        if row["id"] == issued["info"]["id"]
    )
    assert listed["claims"] == given
    rows = server.http().get("/api/v1/audit?limit=10").json()["items"]
    assert next(row for row in rows if row["verb"] == "create")["detail"]["claims"] == given
    new = server.http().post(f"/api/v1/tokens/{issued['info']['id']}/rotate", json={}).json()
    assert (claims(new)["claims"], claims(new)["claimed"]) == (given, "tier=gold;user=u-17")
    assert new["info"]["claims"] == given
    assert made(server, workspaces=["red"])["info"]["claims"] == {}
    # They give no rights.
    assert server.http(issued["token"]).get("/api/v1/models").status_code == 403


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"role": "admin"}, "role: it has a meaning of its own, as have sub, role, jti, iss"),
        ({"ws": "*"}, "ws: it has a meaning of its own"),
        ({"Tier": "x"}, "expected a claim's name"),
        ({"tier": "a;role=admin"}, "tier: expected 1 to 128 visible ASCII characters but ';'"),
        ({"tier": "a\r\nx-podium-caller: root"}, "tier: expected 1 to 128"),
        ({"tier": ""}, "tier: expected 1 to 128"),
        ({f"c{number}": "x" for number in range(17)}, "16"),
    ],
)
def test_claims_that_are_refused(server: ApiServer, given: dict[str, str], words: str) -> None:
    before = len(server.http().get("/api/v1/tokens").json()["items"])
    answer = server.http().post("/api/v1/tokens", json={"subject": "job", "role": "predict", "claims": given})
    assert answer.status_code == 422, answer.text
    [issue] = answer.json()["issues"]
    assert issue["field"] == "claims"
    assert words in issue["message"]
    assert len(server.http().get("/api/v1/tokens").json()["items"]) == before


def test_rotation_keeps_what_the_token_is_for(server: ApiServer) -> None:
    old = made(server, workspaces=["red"], deployments=["churn"], verbs=["predict"], lifetime="2d")
    answer = server.http().post(f"/api/v1/tokens/{old['info']['id']}/rotate", json={"overlap": "10m"})
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert new["token"] != old["token"]
    kept = ("subject", "role", "workspaces", "deployments", "verbs")
    assert [new["info"][key] for key in kept] == [old["info"][key] for key in kept]
    before, after = claims(old), claims(new)
    assert after["exp"] - after["iat"] == before["exp"] - before["iat"] == 2 * 86400
    assert {key: after[key] for key in ("sub", "role", "ws", "dep", "can")} == {
        key: before[key] for key in ("sub", "role", "ws", "dep", "can")
    }
    now = server.http().get(f"/api/v1/tokens/{old['info']['id']}").json()
    assert (now["rotatedTo"], new["info"]["rotatedFrom"]) == (new["info"]["id"], old["info"]["id"])
    left = datetime.datetime.fromisoformat(now["retiresAt"]) - datetime.datetime.now(datetime.UTC)
    assert 0 < left.total_seconds() <= 600
    # Every gateway is told the time now: it needs nobody then.
    config = gateway_config(server)
    assert {"id": old["info"]["id"], "at": now["retiresAt"]} in config["retiring"]
    assert old["info"]["id"] not in config["revoked"]
    rows = server.http().get("/api/v1/audit?limit=10").json()["items"]
    rotated = next(row for row in rows if row["verb"] == "rotate")
    assert rotated["detail"] == {"by": new["info"]["id"], "retiresAt": rotated["detail"]["retiresAt"]}
    again = server.http().post(f"/api/v1/tokens/{old['info']['id']}/rotate", json={})
    assert again.status_code == 409
    assert "took its place" in again.json()["detail"]


def test_the_old_token_ends_when_the_overlap_is_over(server: ApiServer) -> None:
    old = made(server, role="view", workspaces=["red"])
    path = f"/api/v1/tokens/{old['info']['id']}/rotate"
    new = server.http().post(path, json={"overlap": 3}).json()
    holder, successor = server.http(old["token"]), server.http(new["token"])
    assert holder.get("/api/v1/models").status_code == 200
    # A watch that the old token began ends with it.
    with holder.stream("GET", "/api/v1/watch", timeout=60) as watch:
        assert watch.status_code == 200
        for _ in watch.iter_lines():
            pass
    deadline = time.monotonic() + 60
    while holder.get("/api/v1/models").status_code != 401:
        assert time.monotonic() < deadline, "it still works"
        time.sleep(0.1)
    refused = holder.get("/api/v1/models").json()
    assert "rotated" in refused["detail"]
    assert successor.get("/api/v1/models").status_code == 200


def test_no_overlap_is_at_once(server: ApiServer) -> None:
    old = made(server, role="view", workspaces=["red"])
    server.http().post(f"/api/v1/tokens/{old['info']['id']}/rotate", json={"overlap": 0})
    assert server.http(old["token"]).get("/api/v1/models").status_code == 401


def test_what_cannot_be_rotated(server: ApiServer) -> None:
    http = server.http()

    def rotate(token_id: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return http.post(f"/api/v1/tokens/{token_id}/rotate", json=body or {})

    own = next(row for row in http.get("/api/v1/tokens").json()["items"] if row["subject"] == "gateway")
    assert rotate(own["id"]).status_code == 409
    assert "file that the server keeps" in rotate(own["id"]).json()["detail"]
    assert rotate("nobody").status_code == 404
    gone = made(server, workspaces=["red"])["info"]["id"]
    http.delete(f"/api/v1/tokens/{gone}")
    assert rotate(gone).status_code == 409
    good = made(server, workspaces=["red"])["info"]["id"]
    for body, field in (({"overlap": "31d"}, "overlap"), ({"overlap": -1}, "overlap"), ({"x": 1}, "x")):
        answer = rotate(good, body)
        assert answer.status_code == 422
        assert answer.json()["issues"][0]["field"] == field


def test_the_client_rotates(server: ApiServer) -> None:
    with Client(url=server.url, token=server.admin_token) as client:
        old = client.create_token("c", "predict", workspaces=["red"], deployments=["churn"])
        new = client.rotate_token(old.info.id, overlap="5m")
        assert client.token(old.info.id).rotated_to == new.info.id
        assert new.info.deployments == ["red/churn"]
        with pytest.raises(Refused):
            client.rotate_token(old.info.id)
        with pytest.raises(NotFound):
            client.token("nobody")
