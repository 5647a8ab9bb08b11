"""What a Route names must be there when it is applied."""

from collections.abc import Iterator

import pytest

from podium.client import Client
from podium.resources.errors import InvalidInput
from tests.integration.api.server import ApiServer, deployment
from tests.integration.api.test_routes import route

EVERYWHERE = {
    "to": [{"deployment": "smal", "weight": 50}, {"deployment": "big", "weight": 50}],
    "shadow": [{"deployment": "shade", "percent": 5}],
    "cascade": {"deployment": "larg"},
    "fallback": {"deployments": ["small", "las"]},
}


@pytest.fixture
def client(churn: ApiServer) -> Iterator[Client]:
    with Client(churn.url, churn.admin_token) as made:
        made.apply(deployment("small"))
        made.apply(deployment("big"))
        yield made


def test_a_name_that_is_not_there_is_refused_wherever_it_stands(client: Client, churn: ApiServer) -> None:
    with pytest.raises(InvalidInput) as refused:
        client.apply(route("front", {"match": {"path": "/infer"}, "to": "big"}, EVERYWHERE))
    assert [issue.field for issue in refused.value.issues] == [
        "spec.rules[1].to[0].deployment",
        "spec.rules[1].shadow[0].deployment",
        "spec.rules[1].cascade.deployment",
        "spec.rules[1].fallback.deployments[1]",
    ]
    words = "there is no deployment smal in workspace default; known: big, small"
    assert words in refused.value.issues[0].message
    assert "apply the Deployment before the Route" in (refused.value.next_step or "")
    assert client.list("Route") == []
    answer = churn.http().post("/api/v1/apply", json=route("front", {"to": "smal"}))
    assert answer.status_code == 422


def test_one_that_is_being_deleted_is_not_there(client: Client) -> None:
    client.delete("Deployment", "small")
    with pytest.raises(InvalidInput, match="small is being deleted"):
        client.apply(route("front", {"to": "small"}))


def test_what_a_stored_route_lacks_does_not_stand_in_the_way_of_its_mending(
    client: Client, churn: ApiServer
) -> None:
    rules = {"to": "big", "fallback": {"deployments": ["gone"]}}
    churn.create(route("front", rules))
    assert client.apply(route("front", rules, timeout="5s")).action == "updated"
    with pytest.raises(
        InvalidInput, match=r"rules\[0\].fallback.deployments\[1\]: there is no deployment typo"
    ):
        client.apply(route("front", {**rules, "fallback": {"deployments": ["gone", "typo"]}}))


def test_a_dry_run_may_say_what_would_be_there_by_then(client: Client) -> None:
    wish = route("front", {"to": "next"})
    with pytest.raises(InvalidInput, match="no deployment next"):
        client.apply(wish, dry_run=True)
    assert client.apply(wish, dry_run=True, beside=["next"]).action == "created"
    with pytest.raises(InvalidInput, match="beside: only with dryRun"):
        client.apply(wish, beside=["next"])
    assert client.list("Route") == []
