"""`podium shadow show` and the API behind it: who may see which comparison, and what a person is told."""

import datetime
from typing import Any

import pytest

from podium.analysis.divergence import compared
from podium.resources.comparison import Comparison, DivergentExample
from podium.store import ComparisonRow
from tests.integration.api.server import ApiServer, deployment, workspace
from tests.integration.cli.conftest import Podium

NOW = datetime.datetime.now(datetime.UTC)

LABEL = compared("label", "class", (1000, 10.0, 0), 0.05)
SCORE = compared("score", "number", (1000, 25.0, 4), 0.05)


def keep(server: ApiServer, uid: str, workspace: str, shadow: str, **more: Any) -> None:
    """As the comparison of a shadow with `old-00003`, which is kept with any object."""
    given = {"sources": ["Route public rule 0"], "pairs": 0} | more
    one = Comparison(workspace=workspace, champion="old-00003", shadow=shadow, **given)
    items = [one.model_dump(mode="json", by_alias=True)]
    assert server.store.save_comparison(ComparisonRow(uid, workspace, shadow, 1, NOW, items, {}))


@pytest.fixture
def compared_ones(server: ApiServer) -> ApiServer:
    server.create(workspace("team"))
    example = DivergentExample(
        request_id="r-17", at=NOW, output="label", difference=1.0, champion='["yes"]', shadow='["\x1b[31mno"]'
    )
    keep(
        server, server.create(deployment("new")).uid, "default", "new-00001",
        pairs=1000, shadow_failed=7, lost=3, unmatched_champion=20, newest=NOW, since=NOW,
        champion_seconds=0.002, shadow_seconds=0.003, examples=[example],
        per_output=[LABEL, SCORE],
    )  # fmt: skip
    other = server.create(deployment("mine", workspace="team"))
    keep(server, other.uid, "team", "mine-00001", message="mine-00001 serves by runtime.command", sources=[])
    return server


def test_what_a_person_is_told(podium: Podium, compared_ones: ApiServer) -> None:
    text = podium("shadow", "show").out
    assert "new-00001 beside old-00003 (Route public rule 0)" in text
    assert "1000 requests answered by both" in text
    assert "on average 2.00 ms and 3.00 ms" in text
    assert "7 that only the champion answered" in text
    assert "3 records lost" in text
    label, score = (line.split() for line in text.splitlines() if line.split()[0] in ("label", "score"))
    assert label[:3] == ["label", "agreement", "0.9900"]
    assert score[:4] == ["score", "mean", "distance", "0.0250"]
    assert score[-1] == "4"
    assert "r-17" not in text
    shown = podium("shadow", "show", "public", "--examples").out
    assert "r-17" in shown
    assert "\x1b" not in shown
    team = podium("shadow", "show", "-w", "team").out
    assert "no copies are made any more" in team
    assert "mine-00001 serves by runtime.command" in team


@pytest.mark.parametrize("name", ["new", "new-00001", "old", "old-00003", "public"])
def test_by_any_of_its_names(podium: Podium, compared_ones: ApiServer, name: str) -> None:
    [one] = podium("shadow", "show", name, "-o", "json").json()["items"]
    assert (one["champion"], one["shadow"], one["pairs"]) == ("old-00003", "new-00001", 1000)
    low, high = one["perOutput"][0]["interval"]
    assert low < 0.99 < high


def test_an_unknown_name_and_nothing_at_all(podium: Podium, compared_ones: ApiServer) -> None:
    refused = podium("shadow", "show", "nobody", code=1)
    assert "compared are: new-00001, old-00003" in refused.err
    compared_ones.create(workspace("empty"))
    assert podium("shadow", "show", "-w", "empty").out.strip() == "no shadow gets copies of requests"


def test_only_of_the_tokens_own_workspaces(compared_ones: ApiServer) -> None:
    everywhere = compared_ones.http(compared_ones.admin_token).get("/api/v1/comparisons").json()["items"]
    assert {one["workspace"] for one in everywhere} == {"default", "team"}
    viewer = compared_ones.http(compared_ones.token("view", "team"))
    assert [one["workspace"] for one in viewer.get("/api/v1/comparisons").json()["items"]] == ["team"]
    assert viewer.get("/api/v1/workspaces/team/comparisons").status_code == 200
    assert viewer.get("/api/v1/workspaces/default/comparisons").status_code == 403
    predicting = compared_ones.http(compared_ones.token("predict", "default"))
    assert predicting.get("/api/v1/workspaces/default/comparisons").status_code == 403
