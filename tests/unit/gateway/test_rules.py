"""Routes as Envoy is told them: what a shift of weights changes, and what an agent reads back from its files."""

from typing import Any

import orjson
import pytest

from podium.gateway.fleet import Wish, route_key
from podium.gateway.loader import Piece, rendered
from podium.gateway.render.read_back import clusters_of, entries_of
from podium.gateway.render.routes import route_table
from podium.gateway.render.weights import over
from tests.unit.planning.test_routes import entry, plan, to


def piece(*rules: dict[str, Any], **more: Any) -> Piece:
    return rendered(Wish(plan(*rules, **more)))


@pytest.mark.parametrize("sticky", [None, {"header": "x-user"}, {"cookie": "uid"}])
def test_a_shift_among_three_variants_changes_weights_only(sticky: dict[str, str] | None) -> None:
    more = {} if sticky is None else {"sticky": sticky}
    before = piece(to(("a", 80), ("b", 10), ("c", 10), **more))
    after = piece(to(("a", 20), ("b", 50), ("c", 30), **more))
    assert before.routes == after.routes
    assert sorted(before.weights.values()) == [1000, 1000, 8000]
    assert sorted(after.weights.values()) == [2000, 3000, 5000]


def test_so_does_a_rollout_within_a_variant() -> None:
    def at(weight: int) -> Piece:
        entries = {"a": entry("a", 100 - weight, weight), "b": entry("b", 100)}
        return piece(to(("b", 60), ("a", 40), sticky={"header": "x-user"}), entries=entries)

    assert at(0).routes == at(5).routes == at(50).routes
    assert sorted(at(0).weights.values()) == [0, 4000, 6000]
    assert sum(at(5).weights.values()) == 10_000


def test_where_the_first_variant_lies_in_several_places_the_weights_stand_in_the_routes() -> None:
    made = piece(to(("a", 40), ("b", 10), ("c", 10), ("d", 20), ("e", 20), sticky={"header": "x-user"}))
    assert made.weights == {}
    (route,) = (orjson.loads(content) for content in made.routes.published)
    clusters = [(one["name"], one["weight"]) for one in route["route"]["weighted_clusters"]["clusters"]]
    assert clusters == [
        ("default_b-00001_live", 1000), ("default_a-00001_live", 3000), ("default_c-00001_live", 1000),
        ("default_d-00001_live", 2000), ("default_a-00001_live", 1000), ("default_e-00001_live", 2000),
    ]  # fmt: skip


@pytest.mark.parametrize("more", [{"fallback": {"deployments": ["e"]}}, {"cascade": {"deployment": "e"}}])
@pytest.mark.parametrize("sticky", [{"header": "x-user"}, {"cookie": "uid"}])
def test_with_others_behind_them_the_variants_shift_by_weights_too(
    sticky: dict[str, str], more: dict[str, Any]
) -> None:
    before = piece(to(("a", 80), ("b", 10), ("c", 10), sticky=sticky, **more))
    after = piece(to(("a", 20), ("b", 50), ("c", 30), sticky=sticky, **more))
    assert before.routes == after.routes
    assert sorted(after.weights.values()) == [2000, 3000, 5000]
    assert {f"default_{name}-00001_live" for name in "abc"} | {"default_e-00001_next"} == clusters_of(
        after.routes
    )


def shares(made: Piece, weights: dict[str, int]) -> list[dict[str, int]]:
    """Of each route of a Route: arm -> basis points, by these weights; what Envoy would look up."""
    found = []
    for content in made.routes.published:
        target = orjson.loads(content).get("route", {}).get("weighted_clusters")
        if target is None:
            continue
        keys, clusters = target["runtime_key_prefix"], [one["name"] for one in target["clusters"]]
        found.append({name[8]: weights[f"{keys}.{name}"] for name in clusters})
    return found


def test_while_a_route_changes_the_routes_of_before_keep_their_weights() -> None:
    """Weights are there before the routes that look them up; a rule that is put in front takes no other's place."""
    match = {"match": {"headers": {"x-a": "1"}}}
    sticky = {"sticky": {"header": "x-user"}}
    before = piece(to(("a", 90), ("b", 10), **sticky))
    after = piece({**to(("a", 0), ("b", 100)), **match}, to(("a", 50), ("b", 50), **sticky))
    between = over(before.weights, after.weights)
    assert shares(after, between) == [{"a": 0, "b": 10_000}, {"a": 5000, "b": 5000}]
    assert shares(before, between) == [{"a": 5000, "b": 5000}]
    moved = piece(to(("c", 50), ("d", 50)))
    between = over(before.weights, moved.weights)
    assert shares(before, between) == [{"a": 9000, "b": 1000}]
    assert shares(moved, between) == [{"c": 5000, "d": 5000}]


def test_of_two_rules_that_say_the_same_the_first_counts() -> None:
    match = {"match": {"headers": {"x-a": "1"}}}
    made = piece({**to(("a", 90), ("b", 10)), **match}, {**to(("a", 10), ("b", 90)), **match})
    assert shares(made, made.weights)[0] == {"a": 9000, "b": 1000}


def test_what_was_written_is_read_back() -> None:
    made = piece(
        {"match": {"path": {"regex": "/x[0-9]"}}, "to": "a", "shadow": [{"deployment": "b"}]},
        {**to(("a", 50), ("c", 50), sticky={"cookie": "uid"})},
    )
    staged = piece({"to": "a", "fallback": {"deployments": ["d"]}})
    table = route_table([made.routes], configured=True, version="1").content
    assert entries_of(table) == {route_key("default", "front"): made.routes}
    assert clusters_of(made.routes) == {
        "default_a-00001_live", "default_b-00001_shadow", "default_c-00001_live",
    }  # fmt: skip
    assert clusters_of(staged.routes) == {"default_a-00001_live", "default_d-00001_next"}
