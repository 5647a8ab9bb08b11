"""Where a Route's limits stand: buckets by their numbers in a document of its own, and in its routes whose they are."""

import json
from typing import Any

import pytest

from podium.gateway.render.limits import (
    FILTER,
    Counted,
    buckets,
    limited,
    limits_document,
    read_counted,
    together,
)
from podium.resources.traffic import Limits

BOTH: dict[str, Any] = {
    "route": {"requests": 9},
    "perCaller": {"requests": 3, "per": "1m", "burst": 4},
    "callers": 50,
}


def limits(**wish: Any) -> Limits:
    return Limits.model_validate(wish)


def counted(*wishes: dict[str, Any]) -> Counted:
    return together(buckets(limits(**wish)) for wish in wishes)


def settings_of(*wishes: dict[str, Any]) -> dict[str, Any]:
    (resource,) = json.loads(limits_document(counted(*wishes)).content)["resources"]
    assert resource["name"] == FILTER
    found: dict[str, Any] = resource["typed_config"]
    return found


@pytest.mark.parametrize("wish", [None, Limits(), limits(adaptive={}), limits(callers=3)])
def test_without_a_rate_there_is_nothing(wish: Limits | None) -> None:
    assert buckets(wish) == {}
    assert limited(wish, "default", "a") == {}


def test_a_route_says_which_limit_and_whose() -> None:
    (noted,) = limited(limits(**BOTH), "team", "a")["metadata"]["filter_metadata"].values()
    assert noted == {
        "all": {"limit": "9/1.000s/9", "route": "team/a"},
        "each": {"limit": "3/60.000s/4", "route": "team/a"},
    }
    values = {
        entry["value"]
        for one in settings_of(BOTH)["descriptors"]
        for entry in one["entries"]
        if entry["key"] == "limit"
    }
    assert values == {noted["all"]["limit"], noted["each"]["limit"]}


def test_a_limit_of_callers_alone_limits_nobody_together() -> None:
    wish = {"perCaller": {"requests": 3}}
    settings = settings_of(wish)
    assert "token_bucket" not in settings
    keys = [[entry["key"] for entry in one["entries"]] for one in settings["descriptors"]]
    assert sorted(keys) == [["caller", "limit", "route"], ["nobody", "remote_address", "limit", "route"]]
    (noted,) = limited(limits(**wish), "team", "a")["metadata"]["filter_metadata"].values()
    assert list(noted) == ["each"]


def test_routes_with_the_same_numbers_share_descriptors_and_their_room() -> None:
    assert counted(BOTH, BOTH).descriptors == counted(BOTH).descriptors
    each = {"perCaller": {"requests": 1}, "callers": 1000}
    assert [counted(*[each] * times).room for times in (1, 2, 4, 5)] == [1024, 4096, 4096, 16384]
    assert counted({**each, "callers": 2}, BOTH).room == 64
    assert counted().room == 64


def test_what_was_written_is_read_back_and_written_again() -> None:
    for made in (counted(BOTH, {"route": {"requests": 1, "per": "0.07s"}}), counted()):
        content = limits_document(made)
        assert read_counted(content.content) == made
        assert limits_document(read_counted(content.content)) == content


def test_only_what_is_missing_is_a_change() -> None:
    one, other = counted(BOTH), counted({"route": {"requests": 1}})
    assert one.has(one) and one.has(counted()) and not counted().has(one)
    assert not one.has(other)
    assert one.with_all_of(other).has(one) and one.with_all_of(other).has(other)
    assert not one.has(counted({**BOTH, "callers": 500}))
