"""Where a Route's limits stand: the numbers in documents of their own, and in its routes no more than its name."""

import json
from typing import Any

import pytest

from podium.gateway.render.limits import (
    FILTER,
    Buckets,
    buckets,
    limited,
    limits_document,
    read_buckets,
)
from podium.resources.traffic import Limits

BOTH: dict[str, Any] = {
    "route": {"requests": 9},
    "perCaller": {"requests": 3, "per": "1m", "burst": 4},
    "callers": 50,
}


def limits(**wish: Any) -> Limits:
    return Limits.model_validate(wish)


def held(name: str, workspace: str = "default", **wish: Any) -> Buckets:
    made = buckets(limits(**wish or BOTH), workspace, name)
    assert made is not None
    return made


def settings_of(*own: Buckets) -> dict[str, Any]:
    (resource,) = json.loads(limits_document(own).content)["resources"]
    assert resource["name"] == FILTER
    found: dict[str, Any] = resource["typed_config"]
    return found


def test_another_number_changes_no_route() -> None:
    assert limited(limits(**BOTH), "default", "a") == limited(
        limits(route={"requests": 1}, perCaller={"requests": 2}), "default", "a"
    )


@pytest.mark.parametrize("wish", [None, Limits(), limits(adaptive={}), limits(callers=3)])
def test_without_a_rate_there_is_nothing(wish: Limits | None) -> None:
    assert buckets(wish, "default", "a") is None
    assert limited(wish, "default", "a") == {}


def test_a_limit_of_callers_alone_limits_nobody_together() -> None:
    made = held("a", perCaller={"requests": 3})
    settings = settings_of(made)
    assert "token_bucket" not in settings
    keys = [[entry["key"] for entry in one["entries"]] for one in settings["descriptors"]]
    assert sorted(keys) == [["nobody", "remote_address", "route"], ["route", "caller"]]
    assert settings["max_dynamic_descriptors"] == 1000
    (noted,) = limited(limits(perCaller={"requests": 3}), "team", "a")["metadata"]["filter_metadata"].values()
    assert noted == {"each": "team/a"}


def test_callers_of_all_routes_are_told_apart() -> None:
    assert (
        settings_of(held("a"), held("b", perCaller={"requests": 1}, callers=70))["max_dynamic_descriptors"]
        == 70
    )
    assert settings_of(held("a", route={"requests": 1}))["max_dynamic_descriptors"] == 1


def test_what_was_written_is_read_back_and_written_again() -> None:
    made = {
        ("default", "a"): held("a"),
        ("team", "a"): held("a", "team"),
        ("team", "b-c"): held("b-c", "team"),
    }
    content = limits_document(made.values())
    found = read_buckets(content.content)
    assert found == made
    assert limits_document(reversed(list(found.values()))) == content
    assert read_buckets(limits_document(()).content) == {}


def test_what_a_document_lacks() -> None:
    made = held("a")
    assert made.more_than(None)
    assert not made.more_than(made)
    assert not held("a", **{**BOTH, "callers": 3}).more_than(made)
    assert held("a", **{**BOTH, "callers": 51}).more_than(made)
    assert held("a", **{**BOTH, "route": {"requests": 8}}).more_than(made)
