"""Filters that run for some requests only. Called by the renderers of filters that most requests do not concern.

A filter that is skipped costs Envoy some microseconds, a script that runs for every request a fourth of all. One that
is off (`entrance`) costs nothing.
"""

from typing import Any

from podium.gateway.render.document import typed


def only_for(requests: dict[str, Any], name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The filter `name`, skipped for all requests but those that the predicate `requests` is true of."""
    skip = typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter")
    others = {
        "predicate": {"not_matcher": requests},
        "on_match": {"action": {"name": "skip", "typed_config": skip}},
    }
    return {
        "name": name,
        "typed_config": typed(
            "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            extension_config={"name": name, "typed_config": config},
            xds_matcher={"matcher_list": {"matchers": [others]}},
        ),
    }


def switched_on(name: str) -> dict[str, Any]:
    """For a route's `typed_per_filter_config`: that the filter `name`, made by `only_for`, is on."""
    return {name: typed("envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute")}


def header(name: str, match: dict[str, Any]) -> dict[str, Any]:
    """The predicate that a header (or `:path`) matches, as Envoy's StringMatcher says it."""
    read = typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=name)
    return {"single_predicate": {"input": {"name": name, "typed_config": read}, "value_match": match}}


def either(*predicates: dict[str, Any]) -> dict[str, Any]:
    """The predicate that one of two or more is true."""
    return {"or_matcher": {"predicate": list(predicates)}}
