"""The API of profiles: progress in lines, the kept result, and an end with the connection."""

import json

import httpx
import pytest

from podium.client import Client
from podium.resources.errors import InvalidInput, NotFound
from tests.integration.api.server import ApiServer

PATH = "/api/v1/workspaces/default/models/churn/versions/1/profile"


def test_a_profile_is_kept_with_the_version_and_the_next_takes_its_place(churn: ApiServer) -> None:
    churn.profiler.finish.set()
    with Client(churn.url, churn.admin_token) as client:
        with pytest.raises(NotFound, match="has not been measured yet"):
            client.kept_profile("churn", "1")
        said: list[str] = []
        version = client.profile(
            "churn", "1", budget="5s", progress=lambda progress: said.append(progress.message)
        )
        assert said == ["measuring for 5 s"]
        assert version.status.profile is not None
        assert client.kept_profile("churn", "1") == version.status.profile
        client.profile("churn", "1", budget="7s")
        assert client.kept_profile("churn", "1").seconds == 7
        assert client.get("ModelVersion", "churn.1").status.profile.seconds == 7
        assert client.verify("churn", "1")["object"]["status"]["profile"] is not None, (
            "another status keeps it"
        )
        with pytest.raises(NotFound):
            client.profile("churn", "9")


def test_whoever_leaves_ends_the_profile(churn: ApiServer) -> None:
    with churn.http().stream("POST", PATH, json={"budget": "1h"}) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines)) == {"progress": "measuring for 3600 s"}
        assert not churn.profiler.ended.is_set()
    assert churn.profiler.ended.wait(10), "nothing is measured for nobody"
    assert churn.http().get(PATH).status_code == httpx.codes.NOT_FOUND


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"budget": "1s"}, "budget"),
        ({"budget": "2h"}, "budget"),
        ({"rate": -1}, "rate"),
        ({"p99": "soon"}, "p99"),
        ({"rows": []}, "rows"),
        ({"rows": [[1]], "inputs": {"x": [1]}}, "body"),
        ({"memory": "1Mi"}, "memory"),
        ({"batch": 3}, "batch"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_measured(
    churn: ApiServer, body: dict[str, object], field: str
) -> None:
    answer = churn.http().post(PATH, json=body)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    assert [issue["field"] for issue in answer.json()["issues"]] == [field]
    with Client(churn.url, churn.admin_token) as client, pytest.raises(NotFound):
        client.kept_profile("churn", "1")


def test_who_may(churn: ApiServer) -> None:
    viewer = churn.http(churn.token("view", "default"))
    assert viewer.post(PATH, json={}).status_code == httpx.codes.FORBIDDEN
    assert viewer.get(PATH).status_code == httpx.codes.NOT_FOUND
    stranger = churn.http(churn.token("edit", "other", name="stranger"))
    assert stranger.get(PATH).status_code == httpx.codes.FORBIDDEN
    with Client(churn.url, churn.admin_token) as client, pytest.raises(InvalidInput):
        client.kept_profile("churn", "one")
