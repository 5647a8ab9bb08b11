"""Where a Route's limits stand: the numbers in documents of their own, and in its routes no more than its name."""

import json
from typing import Any

import pytest

from podium.gateway.render.limits import (
    FILTER,
    FILTERS,
    Buckets,
    buckets,
    limited,
    limits_document,
    read_buckets,
)
from podium.gateway.settings import LIMITS
from podium.resources.traffic import Limits

BOTH = {"route": {"requests": 9}, "perCaller": {"requests": 3, "per": "1m", "burst": 4}, "callers": 50}


def limits(**wish: Any) -> Limits:
    return Limits.model_validate(wish)


def held(name: str, workspace: str = "default", **wish: Any) -> Buckets:
    made = buckets(limits(**wish or BOTH), workspace, name)
    assert made is not None
    return made


def settings_in(kind: str, *own: Buckets) -> dict[str, Any]:
    (resource,) = json.loads(limits_document(kind, own).content)["resources"]
    assert resource["name"] == FILTERS[kind][0]
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
    settings = settings_in(made.kind, made)
    assert "token_bucket" not in settings
    keys = [[entry["key"] for entry in one["entries"]] for one in settings["descriptors"]]
    assert sorted(keys) == [["nobody", "remote_address", "route"], ["route", "caller"]]
    assert settings["max_dynamic_descriptors"] == 1000
    (noted,) = limited(limits(perCaller={"requests": 3}), "team", "a")["metadata"]["filter_metadata"].values()
    assert noted == {"each": "team/a"}


def test_a_route_is_in_one_document_and_switches_that_one_on() -> None:
    for name in ("a", "b", "c"):
        made, route = held(name), limited(limits(**BOTH), "default", name)
        assert list(route["typed_per_filter_config"]) == [FILTERS[made.kind][0]]
        assert route["metadata"]["filter_metadata"][FILTER] == {
            "all": f"default/{name}",
            "each": f"default/{name}",
        }
        for kind in LIMITS:
            assert bool(settings_in(kind, made)["descriptors"]) is (kind == made.kind)


def test_routes_are_spread_over_the_documents() -> None:
    count = {kind: sum(held(f"route-{number}").kind == kind for number in range(800)) for kind in LIMITS}
    assert min(count.values()) > 50


def test_what_was_written_is_read_back_and_written_again() -> None:
    kind = held("a").kind
    names = [f"r-{number}" for number in range(100)]
    made = {("team", name): one for name in names if (one := held(name, "team")).kind == kind}
    assert made
    one = held("a")
    content = limits_document(kind, [one, *made.values()])
    found = read_buckets(kind, content.content)
    assert set(found) == {("default", "a"), *made}
    assert sorted(found["default", "a"].descriptors) == sorted(one.descriptors)
    assert limits_document(kind, reversed(list(found.values()))) == content
    assert read_buckets(kind, limits_document(kind, ()).content) == {}
