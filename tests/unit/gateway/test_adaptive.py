"""Where a Route's adaptive limit stands: its settings in a document of its own, and in its routes whose they are."""

import json
from typing import Any

import pytest

from podium.gateway.render.adaptive import (
    FILTER,
    NOTE,
    adapting,
    adaptive_document,
    controllers,
    read_controllers,
)
from podium.resources.traffic import AdaptiveConcurrency, Limits


def limits(**wish: Any) -> Limits:
    return Limits.model_validate({"adaptive": wish})


@pytest.mark.parametrize("wish", [None, Limits(), Limits.model_validate({"route": {"requests": 1}})])
def test_without_such_a_limit_there_is_nothing(wish: Limits | None) -> None:
    assert adapting(wish, "default", "a") == controllers(wish, "default", "a") == {}


def test_each_route_has_a_controller_of_its_own_and_says_which() -> None:
    held = controllers(limits(), "team", "a") | controllers(limits(minConcurrency=7), "default", "a")
    (resource,) = json.loads(adaptive_document(held).content)["resources"]
    assert resource["name"] == FILTER
    known = resource["typed_config"]["xds_matcher"]["matcher_tree"]["exact_match_map"]["map"]
    least = {
        name: one["action"]["typed_config"]["typed_config"]["typed_config"]["gradient_controller_config"][
            "min_rtt_calc_params"
        ]["min_concurrency"]
        for name, one in known.items()
        if name in held
    }
    assert least == {"team/a": 25, "default/a": 7}
    (note,) = adapting(limits(), "team", "a")[NOTE]["on_request_headers"]
    assert note["format_string"]["text_format_source"]["inline_string"] == "team/a"


def test_the_routes_say_nothing_of_the_numbers() -> None:
    """A change of them is none of the route table."""
    assert adapting(limits(), "team", "a") == adapting(limits(maxConcurrency=9), "team", "a")


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b")])
def test_what_was_written_is_read_back_and_written_again(names: tuple[str, ...]) -> None:
    held = {key: one for name in names for key, one in controllers(limits(), "team", name).items()}
    written = adaptive_document(held)
    assert read_controllers(written.content) == held
    assert adaptive_document(read_controllers(written.content)) == written


@pytest.mark.parametrize(
    ("wish", "least"), [({}, 25), ({"maxConcurrency": 10}, 10), ({"minConcurrency": 1}, 1)]
)
def test_the_least_is_within_the_most(wish: dict[str, Any], least: int) -> None:
    assert AdaptiveConcurrency.model_validate(wish).least == least
