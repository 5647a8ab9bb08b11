"""Routes at the API: who would answer, what stands in the way of a deletion, and patterns that mean harm."""

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from podium.client import Client
from podium.resources.errors import InvalidInput, NotFound, Refused
from podium.resources.route_test import RouteTestRequest
from tests.integration.api.server import ApiServer, deployment


def route(name: str, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = {"name": name}
    return {
        "apiVersion": "podium/v1",
        "kind": "Route",
        "metadata": metadata,
        "spec": {"rules": [*rules], **spec},
    }


GOLD = {"name": "gold", "match": {"headers": {"x-tier": "gold"}}, "to": "big"}


@pytest.fixture
def client(churn: ApiServer) -> Iterator[Client]:
    """The Deployment d is there, which nothing serves yet."""
    with Client(churn.url, churn.admin_token) as made:
        made.apply(deployment("d"))
        yield made


def test_who_would_answer_and_why(client: Client, churn: ApiServer) -> None:
    # Stored before an apply asked whether big is there.
    churn.create(route("front", GOLD, {"to": "d"}))
    told = client.test_route("front", RouteTestRequest(headers={"X-Tier": "gold"}))
    assert (told.rule, told.answering) == ("gold", [])
    assert told.absent == ["big: there is no such deployment"]
    told = client.test_route("front", RouteTestRequest())
    assert [(rule.name, rule.matched) for rule in told.rules] == [("gold", False), ("1", True)]
    own = client.test_route("d", RouteTestRequest())
    assert own.rule == "own-path"
    with pytest.raises(NotFound, match="Route 'never'"):
        client.test_route("never", RouteTestRequest())
    closed = deployment("closed", traffic={"ownPath": False})
    assert client.apply(closed).action == "created"
    with pytest.raises(NotFound, match="asked through Routes only"):
        client.test_route("closed", RouteTestRequest())


def test_a_cascade_that_hands_nothing_on_is_told_at_once(client: Client, churn: ApiServer) -> None:
    content = b"import math\n# with a signature"
    files = []
    for data, path in ((b"class: model:Model\n", "podium.yaml"), (content, "model.py")):
        sha = hashlib.sha256(data).hexdigest()
        assert churn.http().put(f"/api/v1/blobs/{sha}", content=data).status_code in (200, 201)
        files.append({"path": path, "size": len(data), "sha256": sha})
    outputs = [{"name": "predict_proba", "datatype": "FP32", "shape": [-1, 2]}]
    body = {"files": files, "signature": {"inputs": [], "outputs": outputs}}
    pushed = churn.http().post("/api/v1/workspaces/default/models/churn/versions", json=body)
    assert pushed.status_code == 200, pushed.text
    # Not served yet: what it asks for counts.
    number = json.loads(pushed.text.splitlines()[-1])["version"]["spec"]["version"]
    client.apply(deployment("small", model={"name": "churn", "version": number}))
    client.apply(deployment("big"))
    cascade = {"deployment": "big", "output": "predict_prob"}
    applied = client.apply(route("cascade", {"to": "small", "cascade": cascade}))
    words = (
        f"rules[0].cascade.output: small is to serve churn version {number}, which has no output predict_prob, so "
        "nothing is handed on; it has predict_proba"
    )
    assert applied.plan == ["Rule 0: to small; what it is not sure of to big.", words]
    assert client.test_route("cascade", RouteTestRequest()).warnings == [words]
    low = route("low", {"to": "small", "cascade": {"deployment": "big", "threshold": 0.5}})
    [_, said] = client.apply(low).plan
    assert "rules[0].cascade.threshold" in said
    assert "never below 0.5" in said
    [_] = client.apply(route("fine", {"to": "small", "cascade": {"deployment": "big"}})).plan


def test_wrong_questions_are_told_what_is_wrong(client: Client, churn: ApiServer) -> None:
    path = "/api/v1/workspaces/default/routes/d/test"
    for body, field in (
        ({"claims": {"exp": "a"}}, "claims"),
        ({"path": "infer"}, "path"),
        ({"method": "GET"}, "method"),
    ):
        answer = churn.http().post(path, json=body)
        assert (answer.status_code, answer.json()["issues"][0]["field"]) == (422, field)


def test_a_deployment_that_a_route_names_is_not_deleted(client: Client) -> None:
    client.apply(route("front", {"to": "d"}))
    with pytest.raises(Refused, match="Deployment d is in use: Route front"):
        client.delete("Deployment", "d")
    assert client.delete("Route", "front").removed
    assert not client.delete("Deployment", "d").removed


def test_a_pattern_that_would_take_for_ever_elsewhere_takes_no_time_here(client: Client) -> None:
    client.apply(route("front", {"match": {"headers": {"x-a": {"regex": "(a+)+b"}}}, "to": "d"}))
    began = time.monotonic()
    told = client.test_route("front", RouteTestRequest(headers={"x-a": "a" * 4096}))
    # With backtracking: longer than the universe is old.
    assert time.monotonic() - began < 60
    assert told.rule is None
    with pytest.raises(InvalidInput, match="RE2"):
        client.apply(route("front", {"match": {"headers": {"x-a": {"regex": "(?=a)"}}}, "to": "d"}))
